"""Executors of every kind give what this process gives, in a fleet too; lost work alone is repeated."""

import concurrent.futures
import operator
import os
import pathlib
import signal
import sys

import pytest

from tfq.errors import UserError
from tfq.execution.engines import check_versions, engine, versions
from tfq.execution.resources import Resources
from tfq.execution.workers import share, spread
from tfq.reconstruction.methods import METHODS


def of_shared(shared, number):
    return shared.value * number, shared.name, os.getpid()


def killed_once(folder, number):
    """Its process dies at the first call with this number."""
    mark = pathlib.Path(folder) / str(number)
    with mark.open("a") as file:
        print(os.getpid(), file=file)
    if number == 2 and len(mark.read_text().split()) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def loaded(_):
    return "tensorflow" in sys.modules


def fails():
    raise UserError("a precision that nobody knows")


def reconstructed(resources):
    # not for the workers, which import this file: they find no other test file, and do without TensorFlow
    import operator_graphs

    from tfq.precision import Precision
    from tfq.reconstruction.reconstruct import Reconstruction, reconstruct

    graph = operator_graphs.ALL["shared"]()
    samples = operator_graphs.draw(graph)
    model = operator_graphs.specified(graph, samples, Precision(weight_bits=4))
    how = Reconstruction("x", METHODS["best"], mode="parallel")
    return reconstruct(graph, model, operator_graphs.calibration_of(samples), how, seed=2, resources=resources)


def text_of(found):
    model, outcomes = found
    weights = [node.weights[name].tobytes() for node in model.nodes for name in sorted(node.weights)]
    return model.grids, weights, outcomes


@pytest.mark.parametrize("threads", [True, False])
def test_calls_go_to_the_executor_of_the_caller(threads):
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        resources = Resources(workers=2, executor=pool)
        taken, done = [], []

        def tasks():
            for number in range(20):
                taken.append(number)
                assert len(taken) - len(done) <= 2 * 2
                yield share(resources, number), 3

        with spread(resources, of_shared, threads=threads) as apart:
            for number, (product, _, process) in apart(of_shared, tasks()):
                done.append(number)
                assert (product, process) == (3 * number, os.getpid())
        assert sorted(done) == list(range(20))
        with pytest.raises(ZeroDivisionError), spread(resources, operator.truediv) as apart:
            list(apart(operator.truediv, [(1, 0), (1, 1)]))


@pytest.mark.parametrize("name", ["ray", "dask"])
def test_a_fleet_repeats_what_is_lost_and_tells_what_fails(name, tmp_path):
    with pytest.raises(UserError, match="a precision that nobody knows") as caught:
        use(name, tmp_path)
    assert type(caught.value) is UserError


def use(name, folder):
    with engine(name, workers=2) as fleet:
        assert fleet.workers == 2
        resources = Resources(executor=fleet)
        told = share(resources, 7)
        with spread(resources, of_shared) as apart:
            found = dict(apart(of_shared, ((told, number) for number in range(12))))
        assert {number: product for number, (product, _, _) in found.items()} == {n: 7 * n for n in range(12)}
        assert len({name for _, name, _ in found.values()}) == 1
        assert os.getpid() not in {process for _, _, process in found.values()}

        assert text_of(reconstructed(resources)) == text_of(reconstructed(Resources()))

        with spread(resources, killed_once) as apart:
            found = dict(apart(killed_once, ((str(folder), number) for number in range(6))))
        assert found == {n: n for n in range(6)}
        calls = {int(path.name): len(path.read_text().split()) for path in folder.iterdir()}
        assert calls.pop(2) == 2
        # what a Dask worker has computed and nobody fetched yet dies with it
        assert sum(calls.values()) <= 5 + 2 * (name == "dask")

        with spread(resources, fails) as apart:
            list(apart(fails, [()]))


def test_the_processes_of_reconstruction_do_not_load_tensorflow():
    with spread(Resources(workers=2), METHODS["best"]) as apart:
        assert [found for _, found in apart(loaded, [(METHODS["adaround"],)])] == [False]


def test_nodes_with_other_versions_are_refused():
    check_versions({"one": versions(), "two": versions()}, "Ray")
    for name, other in (("tensorflow", "2.1.0"), ("python", "3.9"), ("tfq", "0.0.1")):
        with pytest.raises(UserError, match=rf"^the Ray node two has {name} {other}, this machine .*; results would"):
            check_versions({"one": versions(), "two": versions() | {name: other}}, "Ray")
    with pytest.raises(UserError, match="node two has tensorflow not at all"):
        check_versions({"two": {k: v for k, v in versions().items() if k != "tensorflow"}}, "Dask")


@pytest.mark.parametrize("name", ["", "spark", "ray:", "ray:here", "dask:", "dask:here", "local:2"])
def test_an_engine_that_is_none_is_refused(name):
    with pytest.raises(UserError, match=r"^`engine` is .*; it must be local, ray, "), engine(name):
        pass


def test_a_cluster_that_is_not_there_is_told():
    with pytest.raises(UserError, match=r"^cannot use Ray at 127.0.0.1:1: .*refused"), engine("ray:127.0.0.1:1"):
        pass


def test_an_engine_has_workers():
    with pytest.raises(UserError, match=r"^`workers` is 0; it must be at least 1"), engine("ray", workers=0):
        pass


def test_a_cluster_has_its_own_workers():
    told = pytest.raises(UserError, match=r"^`workers` is 2 and `engine` is dask:tcp://here:1")
    with told, engine("dask:tcp://here:1", workers=2):
        pass
