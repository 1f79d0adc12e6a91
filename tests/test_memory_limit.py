"""The memory limit is heeded by every stop that holds arrays by sample: a tiny one leaves next to nothing in memory."""

import contextlib
import functools

import numpy as np
import operator_graphs
import pytest
from operator_graphs import calibration_of, draw, specified

from tfq.allocation.states import find_states
from tfq.calibration.collect import collect_statistics
from tfq.data.loading import Selection, load_samples
from tfq.data.objects import Given
from tfq.data.signatures import input_signatures
from tfq.execution.predict import predict
from tfq.execution.resources import Resources
from tfq.execution.views import View
from tfq.models.widths import units
from tfq.precision import Precision
from tfq.reconstruction.batch_norm import tune_batch_norm
from tfq.reconstruction.channel_statistics import channel_statistics
from tfq.reconstruction.learner import Rates
from tfq.reconstruction.methods import METHODS
from tfq.reconstruction.network_tuning import Schedule, tune_network
from tfq.reconstruction.reconstruct import Reconstruction, reconstruct
from tfq.simulate.eager import simulate
from tfq.simulate.judge import Judge
from tfq.simulate.tensor_store import TensorStore

AMPLE, TINY = 2**30, 1


@functools.cache
def start():
    graph = operator_graphs.convolutions()
    samples = draw(graph)
    return graph, calibration_of(samples), specified(graph, samples, Precision(weight_bits=4))


class Steps:
    """Progress that remembers how many samples, layers or steps were done at a time."""

    def __init__(self):
        self.largest = {}

    @contextlib.contextmanager
    def task(self, description, total, *, expected_seconds=0.0):  # noqa: ARG002
        def advance(steps):
            self.largest[description] = max(steps, self.largest.get(description, 0))

        yield advance


def loaded(graph, calibration, _, resources):
    samples = {name: np.asarray(values, np.float64) for name, values in calibration.samples.arrays.items()}
    found = load_samples(Given(samples, "data"), input_signatures(graph), Selection(24), resources=resources)
    assert all(isinstance(values, np.memmap) == (resources.memory_limit == TINY) for values in found.arrays.values())
    return list(found.arrays.values())


def statistics(graph, calibration, _, resources):
    found = collect_statistics(graph, calibration.seen.batches(8), tensors=["stem", "logits"], resources=resources)
    return [(s.minimum, s.maximum) for s in found.everything.whole.values()]


def channels(graph, calibration, _, resources):
    found = channel_statistics(graph, calibration.seen, ["stem", "depthwise"], resources=resources)
    return [s.power for s in found.values()]


def judged(graph, calibration, model, resources):
    return [Judge(graph, calibration.judging.arrays, resources=resources).divergence(model)]


def simulated(_, calibration, model, resources):
    return list(simulate(model, calibration.seen.arrays, resources=resources).values())


def weights(model):
    return [values for node in model.nodes for values in node.weights.values()]


def reconstructed(mode, graph, calibration, model, resources):
    how = Reconstruction("least_squares", METHODS["least_squares"], mode)
    return weights(reconstruct(graph, model, calibration, how, resources=resources)[0])


def states(graph, calibration, model, resources):
    found = find_states(
        graph, model, calibration, candidates={unit.name: [Precision()] for unit in units(graph)}, resources=resources
    )
    return [values for state in found.values() for node in state.nodes for values in node.weights.values()]


def batch_norms(graph, calibration, model, resources):
    tune_batch_norm(graph, model, calibration.seen, resources=resources)
    return []  # every batch is normalised by itself: others give others


def network(graph, calibration, model, resources):
    schedule = Schedule(Rates(biases=1.0, scales=0.1), 8)
    return weights(tune_network(graph, model, calibration, schedule=schedule, resources=resources))


STOPS = {
    "loading": loaded,
    "calibration": statistics,
    "channels": channels,
    "judge": judged,
    "simulation": simulated,
    "sequential": functools.partial(reconstructed, "sequential"),
    "parallel": functools.partial(reconstructed, "parallel"),
    "states": states,
    "batch norms": batch_norms,
    "network": network,
}
BY_SAMPLE = ("calibrate", "measure channels", "simulate", "batch-norm tuning")
# What reads more at a time: inputs that come in batches and are cut afterwards; and what keeps tensors of all samples
# in stores, and works on batches that do not depend on the limit.
IN_BATCHES = ("calibration", "network", "loading", "sequential", "parallel", "states")


@pytest.mark.parametrize("name", STOPS)
def test_a_tiny_limit_is_heeded(name, monkeypatch):
    expected = STOPS[name](*start(), Resources(AMPLE))
    create, read = TensorStore.create, View.__getitem__
    at_a_time = [0]

    def created(store, *arguments):
        create(store, *arguments)
        assert sum(s.memory.nbytes for s in store._stored.values() if s.memory is not None) <= TINY

    def recorded(view, index):
        found = read(view, index)
        at_a_time.append(len(view.positions[index]) if isinstance(index, (slice, np.ndarray)) else 1)
        return found

    monkeypatch.setattr(TensorStore, "create", created)
    monkeypatch.setattr(View, "__getitem__", recorded)
    progress = Steps()
    found = STOPS[name](*start(), Resources(TINY, progress=progress))
    assert {steps for task, steps in progress.largest.items() if task in BY_SAMPLE} <= {1}
    if name not in IN_BATCHES:
        assert max(at_a_time) <= 1
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


def test_interpreters_run_as_many_samples_at_a_time_as_fit(classifier):
    steps = [Steps(), Steps()]
    (many,), (one,) = (
        predict(classifier[3], {"image": classifier[1]}, threads=1, resources=Resources(limit, progress=p))
        for limit, p in zip((AMPLE, TINY), steps, strict=True)
    )
    assert [p.largest["predict"] for p in steps] == [32, 1]
    np.testing.assert_array_equal(many, one)
