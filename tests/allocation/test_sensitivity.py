"""Sensitivities against exports from scratch, NumPy, exact derivatives, and a run that was killed."""

import contextlib
import dataclasses
import functools
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import operator_graphs
import pytest
from operator_graphs import calibration_of, draw, representative, specified

from tfq.allocation import sensitivity
from tfq.allocation.fisher import gradient_estimates
from tfq.allocation.sensitivity import FLOOR, Loss, measured, output_errors
from tfq.allocation.states import State, apply, as_wide, find_states, float_states, packed
from tfq.errors import UserError
from tfq.execution.predict import predict
from tfq.execution.resources import Resources
from tfq.export.package import export_quantized
from tfq.export.variants import Exporter
from tfq.models.graph import Graph, Node
from tfq.models.widths import units
from tfq.precision import INT8, Precision, precision_of
from tfq.simulate.divergence import divergence

CANDIDATES = [precision_of(name) for name in ("w2", "w3", "e3", "w4", "w6", "w8")]


def everywhere(graph, candidates):
    return dict.fromkeys((unit.name for unit in units(graph)), candidates)


@functools.cache
def start(name):
    """(float graph, samples, 8-bit model, states)."""
    graph = operator_graphs.ALL[name]()
    samples = draw(graph)
    base = specified(graph, samples)
    return (
        graph,
        samples,
        base,
        find_states(graph, base, calibration_of(samples), candidates=everywhere(graph, CANDIDATES), seed=1),
    )


@functools.cache
def exporter(name):
    """Converts the base first, and so nothing else."""
    _, samples, base, _ = start(name)
    made = Exporter(representative(samples))
    made.export(base)
    return made


def from_scratch(model, samples):
    return export_quantized(model, representative(samples))


@pytest.mark.parametrize("name", ["convolutions", "transformer", "islands", "shared"])
def test_a_model_of_mixed_states_is_byte_for_byte_its_own_export(name):
    _, samples, base, states = start(name)
    made = exporter(name)
    names = dict.fromkeys(unit for unit, _ in states)
    chosen = {unit: states[unit, CANDIDATES[index % len(CANDIDATES)].name] for index, unit in enumerate(names)}
    model = apply(base, *chosen.values())
    expected = from_scratch(model, samples)
    assert made.export(model) == expected
    assert made.export(base) != expected


def test_versions_of_one_model_are_converted_once(monkeypatch):
    _, _, base, states = start("shared")
    made = exporter("shared")
    monkeypatch.setattr("tfq.export.variants.convert_quantized", None)
    for state in states.values():
        model = apply(base, state)
        assert made.export(model) != made.export(base)


@pytest.mark.parametrize("unit", ["stem", "depthwise", "no_bias", "transposed", "hidden"])
def test_a_single_swap_is_byte_for_byte_its_own_export(unit):
    _, samples, base, states = start("convolutions")
    model = apply(base, states[unit, "w2"])
    assert exporter("convolutions").export(model) == from_scratch(model, samples)


def test_packed_states_are_byte_for_byte_their_own_export():
    _, samples, base, states = start("shared")
    model = apply(base, packed(states["conv_right", "w3"]), packed(states["dense_right", "w4"]))
    assert exporter("shared").export(model) == from_scratch(model, samples)


@pytest.mark.parametrize("from_zero", [True, False])
def test_a_bias_that_becomes_zeros_or_ceases_to_be_is_exported_as_from_scratch(from_zero):
    _, samples, base, _ = start("shared")

    def with_bias(value):
        def changed(node):
            return node.replace(weights={**node.weights, "bias": np.full(3, value, np.float32)})

        return base.with_nodes(*(changed(node) for node in base.nodes if node.kind == "Dense"))

    first, second = (with_bias(0.0), with_bias(0.1)) if from_zero else (with_bias(0.1), with_bias(0.0))
    made = Exporter(representative(samples))
    made.export(first)
    assert made.export(second) == from_scratch(second, samples)


def test_what_is_measured_is_the_exported_file():
    graph, samples, base, states = start("shared")
    loss = Loss.of(graph, samples)
    some = [states["conv_right", "w2"], states["dense_right", "w3"]]
    found = measured(base, some, loss)

    def loss_of(model):
        return divergence(loss.reference, predict(from_scratch(model, samples), samples)).mean()

    before = loss_of(base)
    assert found == {state.key: max(loss_of(apply(base, state)) - before, FLOOR) for state in some}
    assert found["conv_right", "w2"] > 100 * FLOOR


def test_threads_change_nothing_and_nothing_is_below_the_floor():
    graph, samples, base, states = start("shared")
    loss = Loss.of(graph, samples)
    found = measured(base, states.values(), loss, resources=Resources(workers=3))
    assert found == measured(base, states.values(), loss)
    assert list(found) == list(states)
    assert min(found.values()) >= FLOOR


def test_the_state_that_the_base_is_in_costs_nothing():
    graph, samples, base, _ = start("shared")
    same = find_states(graph, base, calibration_of(samples), candidates=everywhere(graph, [INT8]), method="nearest")
    assert set(measured(base, same.values(), Loss.of(graph, samples)).values()) == {FLOOR}
    assert set(gradient_estimates(graph, same.values(), Loss.of(graph, samples)).values()) != {FLOOR}


def test_float_states_are_measured_in_the_simulation_and_estimated_as_free():
    graph, samples, base, states = start("convolutions")
    loss = Loss.of(graph, samples)
    float_state = float_states(graph, base)["stem", "float32"]
    found = measured(base, [states["stem", "w2"], float_state], loss)
    simulate = sensitivity.simulated(loss)
    assert found["stem", "float32"] == max(simulate(apply(base, float_state)) - simulate(base), FLOOR)
    assert found["stem", "float32"] < found["stem", "w2"]
    assert gradient_estimates(graph, [float_state], loss) == {("stem", "float32"): FLOOR}


def test_where_16_bits_gain_the_other_states_lose_what_they_gain():
    graph, samples, base, states = start("convolutions")
    loss = Loss.of(graph, samples)
    narrow = [states[unit, "w8"] for unit in ("logits", "stem")]
    wide = as_wide(narrow[0], base)
    found = measured(base, [*narrow, wide], loss)
    simulate = sensitivity.simulated(loss)
    lost = simulate(apply(base, wide)) - simulate(base)
    assert found["logits", "w8a16"] == max(lost, FLOOR)
    assert found["logits", "w8"] >= max(FLOOR, -lost)
    assert found["stem", "w8"] == measured(base, [narrow[1]], loss)["stem", "w8"]


def ranks(values):
    return np.argsort(np.argsort(values))


def test_estimates_rank_states_as_measurement_does():
    graph, samples, base, states = start("convolutions")
    loss = Loss.of(graph, samples)
    truth = measured(base, states.values(), loss)
    for found in (gradient_estimates(graph, states.values(), loss), output_errors(states.values())):
        assert list(found) == list(truth)
        assert np.corrcoef(ranks(list(found.values())), ranks(list(truth.values())))[0, 1] > 0.6


def one_layer(kind, inputs=6, classes=4):
    """A dense layer, its softmax behind it or not."""
    rng = np.random.default_rng(5)
    weights = {"kernel": rng.normal(size=(inputs, classes)).astype(np.float32), "bias": np.zeros(classes, np.float32)}
    nodes = [
        Node("x", "Input", {"shape": (inputs,), "dtype": "float32"}),
        Node("dense", "Dense", {"units": classes}, ("x",), weights),
        Node("softmax", "Softmax", {}, ("dense",)),
    ]
    return Graph(tuple(nodes[:2] if kind == "linear" else nodes), ("x",), ("dense" if kind == "linear" else "softmax",))


def perturbed(graph, size):
    """A float state with an error of this size, and that error."""
    node = graph["dense"]
    error = (size * np.random.default_rng(6).normal(size=node.weights["kernel"].shape)).astype(np.float32)
    changed = node.replace(weights={**node.weights, "kernel": node.weights["kernel"] + error})
    return State("dense", "w8", (changed,), "none", 0.0, 0.0), changed.weights["kernel"] - node.weights["kernel"]


def inputs_of(count):
    return {"x": np.random.default_rng(7).normal(size=(count, 6)).astype(np.float32)}


@pytest.mark.parametrize("kind", ["linear", "probabilities"])
def test_the_estimate_of_a_divergence_is_right_on_average(kind):
    graph, samples = one_layer(kind), inputs_of(1000)
    state, _ = perturbed(graph, 0.02)
    loss = Loss.of(graph, samples)
    (found,) = gradient_estimates(graph, [state], loss).values()
    changed = graph.replace_nodes([state.nodes[0] if n.name == "dense" else n for n in graph.nodes])
    expected = divergence(loss.reference, Loss.of(changed, samples).reference).mean()
    assert abs(found / expected - 1) < 0.15


def test_activations_of_few_bits_are_not_exported():
    graph, samples, _, _ = start("convolutions")
    narrow = specified(graph, samples, Precision(activation_bits=4))
    with pytest.raises(ValueError, match="no kernels for activations of fewer than 8 bits"):
        exporter("convolutions").export(narrow)


class Counted:
    """How many files were measured."""

    def __init__(self, monkeypatch):
        self.files = 0
        export = Exporter.export

        def counted(exporter, *arguments):
            self.files += 1
            return export(exporter, *arguments)

        monkeypatch.setattr(Exporter, "export", counted)


def measure_slowly(journal, stop_at):
    """What the killed process does: measures, and from the number `stop_at` on waits to be killed."""
    graph, samples, base, states = start("shared")

    class Slow:
        def task(self, *_, **__):
            done = 0

            def advance(steps):
                nonlocal done
                done += steps
                if done >= stop_at:
                    time.sleep(120)

            return contextlib.nullcontext(advance)

    slow = Resources(workers=2, progress=Slow())
    measured(base, states.values(), Loss.of(graph, samples), ledger=journal, resources=slow)


def test_a_run_that_is_killed_goes_on_where_it_stopped(tmp_path, monkeypatch):
    journal = tmp_path / "journal.jsonl"
    folders = [str(Path(__file__).parent), str(Path(operator_graphs.__file__).parent)]
    code = f"import sys; sys.path[:0] = {folders!r}; import pathlib, test_sensitivity as t;"
    code += f" t.measure_slowly(pathlib.Path({str(journal)!r}), 5)"
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE) as process:
        while not journal.exists() or len(journal.read_bytes().splitlines()) < 6:
            assert process.poll() is None, process.stderr.read().decode()
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    journal.write_bytes(journal.read_bytes() + b'{"key": ["dense_ri')
    known = len(journal.read_bytes().splitlines()) - 2  # without the header and the half-written line
    assert known == 5

    graph, samples, base, states = start("shared")
    loss = Loss.of(graph, samples)
    counted = Counted(monkeypatch)
    found = measured(base, states.values(), loss, ledger=journal)
    assert counted.files == len(states) + 1 - known
    assert measured(base, states.values(), loss, ledger=journal) == found
    assert counted.files == len(states) + 1 - known
    assert found == measured(base, states.values(), loss)


def test_a_journal_of_other_circumstances_is_refused(tmp_path):
    graph, samples, base, states = start("convolutions")
    loss, state = Loss.of(graph, samples), states["logits", "w2"]
    journal = tmp_path / "journal.jsonl"
    measured(base, [state], loss, ledger=journal)
    nodes = [n.replace(weights={k: v * 1.01 for k, v in n.weights.items()}) for n in base.nodes]
    others = {
        "samples": (base, state, dataclasses.replace(loss, samples={"image": samples["image"] + np.float32(1e-3)})),
        "weights": (base.with_nodes(*nodes), state, loss),
        "spec": (dataclasses.replace(base, output_type="float32"), state, loss),
        "method of the states": (base, dataclasses.replace(state, method="adaround, seed 1"), loss),
    }
    for other in others.values():
        with pytest.raises(UserError, match="another model, other samples or another method; delete it"):
            measured(other[0], [other[1]], other[2], ledger=journal)


def test_a_journal_takes_further_candidates(tmp_path, monkeypatch):
    graph, samples, base, states = start("shared")
    loss, journal = Loss.of(graph, samples), tmp_path / "journal.jsonl"
    some = [state for state in states.values() if state.candidate == "w2"]
    measured(base, some, loss, ledger=journal)
    counted = Counted(monkeypatch)
    more = [*states.values(), float_states(graph, base)["conv_right", "float16"]]
    assert list(measured(base, more, loss, ledger=journal)) == [state.key for state in more]
    assert counted.files == len(states) - len(some)


def test_a_loss_is_a_mean_over_samples():
    outputs = [np.random.default_rng(0).normal(size=(10, 3)), np.random.default_rng(1).normal(size=(10, 2, 2))]
    loss = Loss({"x": np.zeros((10, 1))}, outputs)
    assert loss(outputs) == 0
    others = [values + 0.1 for values in outputs]
    expected = sum(
        np.mean([np.square(a - b).sum() for a, b in zip(y, q, strict=True)]) / np.mean([np.square(a).sum() for a in y])
        for y, q in zip(outputs, others, strict=True)
    )
    assert loss(others) == pytest.approx(expected)
