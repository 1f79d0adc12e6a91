"""The engine against the simulation, the float model and its own promises."""

import contextlib
import dataclasses
import functools

import numpy as np
import operator_graphs
import pytest
import tensorflow as tf
from keras_outputs import predict_list
from operator_graphs import calibration_of, draw, specified

from tfq.data.roles import Roles
from tfq.execution.resources import Resources
from tfq.export.package import export_quantized
from tfq.models.equality import node_function, tensor_shapes
from tfq.models.graph import Graph, Node, build_model
from tfq.models.widths import is_weighted
from tfq.precision import Precision
from tfq.reconstruction.methods import METHODS
from tfq.reconstruction.problem import UNLIMITED, Solution, clamp, limits_of
from tfq.reconstruction.reconstruct import (
    Reconstruction,
    _limits,
    has_own_input_grid,
    reconstruct,
    reconstructed_names,
    rows_to_choose_by,
)
from tfq.reconstruction.rows import sampled_layers
from tfq.simulate.weights import snap
from tfq.simulate.wrap import build_simulation
from tfq.spec import Specification
from tfq.verify.structure import verify_structure

GRAPHS = tuple(operator_graphs.ALL)
LEAST_SQUARES = METHODS["least_squares"]


@functools.cache
def start(name, bits=4):
    """(float graph, samples, model rounded to the nearest)."""
    graph = operator_graphs.ALL[name]()
    samples = draw(graph)
    return graph, samples, specified(graph, samples, Precision(weight_bits=bits))


def few(samples, count):
    return {name: values[np.arange(count) % len(values)] for name, values in samples.items()}


class Spy:
    """Hands every problem on to a method and keeps it."""

    def __init__(self, method=LEAST_SQUARES):
        self.problems, self.seeds, self._method = {}, [], method

    def __call__(self, problem, seed):
        self.problems[problem.name] = problem
        self.seeds.append(seed)
        return self._method(problem, seed)


def tensors(model, names, samples):
    """The simulation's tensors by name."""
    names = list(dict.fromkeys(names))
    found = predict_list(build_simulation(model, outputs=names), [samples[i] for i in model.inputs])
    return dict(zip(names, found, strict=True))


def float_tensors(graph, names, samples):
    names = list(dict.fromkeys(names))
    found = predict_list(build_model(graph, outputs=names), [samples[i] for i in graph.inputs])
    return dict(zip(names, found, strict=True))


def split(rows, samples, layer):
    """(rows that are fitted, rows to choose by) of the samples seen, told apart one by one."""
    seen = [sample for sample in range(samples) if sample % 8 != 7]
    held = [seen[index // layer.rows_per_sample] % 8 == 3 for index in range(len(seen) * layer.rows_per_sample)]
    return rows[~np.array(held)], rows[np.array(held)]


def those_seen(samples):
    """All but every eighth, which judge."""
    return {name: np.delete(values, np.s_[7::8], axis=0) for name, values in samples.items()}


def assert_same_on_grid(found, expected, step):
    """Equal but for values that float arithmetic in another order puts on the other side of a rounding border."""
    difference = np.abs(found - expected)
    assert difference.max(initial=0) <= 1.01 * step
    assert (difference > 0.01 * step).mean() < 0.005


def test_a_model_without_weights_stays_as_it_is():
    graph = Graph(
        (Node("x", "Input", {"shape": (4,), "dtype": "float32"}), Node("y", "ReLU", {}, ("x",))), ("x",), ("y",)
    )
    samples = {"x": np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)}
    model = specified(graph, samples, Precision(weight_bits=4))
    assert reconstruct(graph, model, calibration_of(samples), Reconstruction("least_squares", LEAST_SQUARES)) == (
        model,
        (),
    )


class TestRows:
    @pytest.mark.parametrize("granularity", ["layer", "block"])
    @pytest.mark.parametrize("name", GRAPHS)
    def test_in_sequence_they_are_what_the_simulation_of_the_result_computes(self, name, granularity):
        graph, samples, model = start(name)
        spy = Spy()
        changed, outcomes = reconstruct(
            graph, model, calibration_of(samples), Reconstruction("spy", spy, granularity=granularity), seed=3
        )
        names = reconstructed_names(model)
        assert [o.name for o in outcomes] == list(spy.problems) == names
        assert spy.seeds == [3 + index for index in range(len(names))]
        layers = sampled_layers(graph, names, 21, 3, by_block=granularity == "block")
        addends = [x.addend for x in layers.values() if x.addend]
        found = tensors(changed, [*(graph[n].inputs[0] for n in names), *addends], those_seen(samples))
        for node, problem in spy.problems.items():
            layer, source = layers[node], graph[node].inputs[0]
            grid = changed.grids[source]
            assert problem.input_grid == grid
            expected = layer.form.rows(found[source], layer.positions)
            for rows, part in zip((problem.inputs, problem.held_inputs), split(expected, 24, layer), strict=True):
                on_grid = dataclasses.replace(problem, inputs=rows).quantized_inputs()
                assert_same_on_grid(on_grid, part, grid.scale[0])
            if layer.addend is None:
                assert problem.offset is problem.held_offset is None
            else:
                expected = layer.outputs(found[layer.addend], layer.positions)
                step = changed.grids[layer.addend].scale[0]
                for rows, part in zip((problem.offset, problem.held_offset), split(expected, 24, layer), strict=True):
                    assert_same_on_grid(rows, part, step)

    @pytest.mark.parametrize("mode", ["sequential", "parallel"])
    @pytest.mark.parametrize("name", GRAPHS)
    def test_targets_are_the_float_layers_before_their_activation(self, name, mode):
        graph, samples, model = start(name)
        spy = Spy(METHODS["nearest"])
        reconstruct(
            graph, model, calibration_of(samples), Reconstruction("spy", spy, mode=mode, granularity="layer"), seed=1
        )
        names = reconstructed_names(model)
        layers = sampled_layers(graph, names, 21, 1, by_block=False)
        found = float_tensors(graph, [*names, *(graph[n].inputs[0] for n in names)], those_seen(samples))
        assert names
        for node, problem in spy.problems.items():
            layer = layers[node]
            outputs = split(layer.outputs(found[node], layer.positions), 24, layer)
            inputs = split(layer.form.rows(found[graph[node].inputs[0]], layer.positions), 24, layer)
            limits = limits_of(graph[node].activation, model[node].grid)
            assert problem.limits in (limits, UNLIMITED)
            assert graph[node].activation is None or problem.limits == limits
            assert problem.offset is None
            for rows, part in zip((problem.targets, problem.held_targets), outputs, strict=True):
                np.testing.assert_allclose(clamp(rows, limits), clamp(part, limits), rtol=1e-4, atol=1e-4)
            if mode == "parallel":
                for rows, part in zip((problem.inputs, problem.held_inputs), inputs, strict=True):
                    np.testing.assert_allclose(rows, part, rtol=1e-5, atol=1e-5)

    def test_the_last_layer_of_a_block_is_fitted_to_the_sum(self):
        graph, samples, model = start("convolutions")
        spy = Spy()
        reconstruct(graph, model, calibration_of(samples), Reconstruction("spy", spy))
        layers = sampled_layers(graph, list(spy.problems), 24, 0, by_block=True)
        # zero_bias has a ReLU of its own before the addition, and no_bias is read by zero_bias too
        assert {n for n, x in layers.items() if x.addend} == set()
        graph, samples, model = start("transformer")
        assert not any(x.addend for x in sampled_layers(graph, ["shrink"], 24, 0, by_block=True).values())

    def test_a_residual_block(self):
        graph, samples, model = residual()
        spy = Spy()
        changed, outcomes = reconstruct(graph, model, calibration_of(samples), Reconstruction("spy", spy))
        layers = sampled_layers(graph, list(spy.problems), 21, 0, by_block=True)
        assert {n: x.addend for n, x in layers.items()} == {"stem": None, "expand": None, "project": "stem"}
        problem, layer = spy.problems["project"], layers["project"]
        assert problem.limits == (0.0, changed.grids["add"].real_range[1])
        total = float_tensors(graph, ["add"], those_seen(samples))["add"]
        expected = split(layer.outputs(total, layer.positions), 24, layer)
        rows, wanted = (clamp(v, problem.limits) for v in (problem.targets, expected[0]))
        np.testing.assert_allclose(rows, wanted, rtol=1e-4, atol=1e-4)
        found = tensors(changed, ["stem"], those_seen(samples))["stem"]
        assert_same_on_grid(
            problem.offset,
            split(layer.outputs(found, layer.positions), 24, layer)[0],
            changed.grids["stem"].scale[0],
        )
        assert [o.kept for o in outcomes[1:]] == [True, True]  # of 21 samples the stem gains nothing

    def test_a_block_makes_good_what_its_shortcut_lost(self):
        graph, samples, model = residual(bits=2)
        errors = {}
        for granularity in ("layer", "block"):
            changed, _ = reconstruct(
                graph, model, calibration_of(samples), Reconstruction("x", METHODS["best"], granularity=granularity)
            )
            found, wanted = tensors(changed, ["add"], samples)["add"], float_tensors(graph, ["add"], samples)["add"]
            errors[granularity] = np.square(found - wanted).sum()
        assert errors["block"] < errors["layer"]


@functools.cache
def residual(bits=3):
    """stem -> expand -> project, added to the stem: as `start`."""
    make = operator_graphs._Builder(7)
    make.input("image", (8, 8, 4))
    make.conv("stem", "image", 4, 6, 3)
    make.conv("expand", "stem", 6, 16, activation="relu6")
    make.conv("project", "expand", 16, 6, 3)
    make.node("add", "Add", ("stem", "project"), activation="relu")
    graph = make.graph(("add",))
    samples = draw(graph)
    return graph, samples, specified(graph, samples, Precision(weight_bits=bits))


def layer_error(model, layer, source, target, addend):
    """Relative error on the rows to choose by, by the Keras layer with the deployed weights."""
    node = snap(model)[layer.form.node.name].replace(activation=None)
    values = node_function(node)([tf.constant(source)]).numpy()
    values = values if addend is None else values + addend
    y, z = (split(layer.outputs(v, layer.positions), 24, layer)[1] for v in (values, target))
    limits = _limits(model[layer.output], z)
    y, z = clamp(y, limits), clamp(z, limits)
    by_row = np.square(y - z).sum() / np.square(z - z.mean(0)).sum()
    if len(z) == 3:  # one row of each of the three samples to choose by
        return by_row
    y, z = (values.reshape(3, -1, *values.shape[1:]).mean(1) for values in (y, z))
    return np.sqrt(by_row * np.square(y - z).sum() / np.square(z - z.mean(0)).sum())


class TestOutcomes:
    @pytest.mark.parametrize("name", GRAPHS)
    def test_before_and_after_are_what_the_deployed_layers_give(self, name):
        graph, samples, model = start(name)
        changed, outcomes = reconstruct(
            graph, model, calibration_of(samples), Reconstruction("x", LEAST_SQUARES, granularity="layer")
        )
        names = [o.name for o in outcomes]
        layers = sampled_layers(graph, names, 21, 0, by_block=False)
        found = tensors(changed, [graph[n].inputs[0] for n in names], those_seen(samples))
        targets = float_tensors(graph, names, those_seen(samples))
        assert any(o.kept for o in outcomes)
        for o in outcomes:
            arguments = layers[o.name], found[graph[o.name].inputs[0]], targets[o.name], None
            assert o.method == "x"
            assert o.before == pytest.approx(layer_error(model, *arguments), rel=0.05)
            assert min(o.before, o.after) == pytest.approx(layer_error(changed, *arguments), rel=0.05)
            assert o.kept == (o.after <= o.before)
            assert bool(o.reason) != o.kept

    @pytest.mark.parametrize("name", ["convolutions", "shared"])
    @pytest.mark.parametrize("mode", ["sequential", "parallel"])
    def test_what_makes_things_worse_is_rolled_back(self, mode, name):
        graph, samples, model = start(name)

        def bad(problem, seed):
            nearest = METHODS["nearest"](problem, seed)
            return Solution(np.zeros_like(nearest.codes), nearest.scales * 3, nearest.bias + problem.has_bias)

        changed, outcomes = reconstruct(graph, model, calibration_of(samples), Reconstruction("bad", bad, mode=mode))
        assert Specification.of(changed) == Specification.of(model)
        for before, after in zip(model.nodes, changed.nodes, strict=True):
            assert_untouched(before, after)
        assert not any(o.kept for o in outcomes)
        for o in outcomes:
            assert o.after > o.before
            assert o.reason == f"the error on samples it was not fitted to rose from {o.before:.3g} to {o.after:.3g}"

    def test_one_bad_layer_leaves_the_others_alone(self):
        graph, samples, model = start("convolutions")

        def one_bad(problem, seed):
            found = LEAST_SQUARES(problem, seed)
            return found if problem.name != "doubled" else dataclasses.replace(found, bias=found.bias + 100)

        changed, outcomes = reconstruct(graph, model, calibration_of(samples), Reconstruction("x", one_bad))
        assert [o.name for o in outcomes if not o.kept] == ["doubled"]
        assert_untouched(model["doubled"], changed["doubled"])
        assert changed["doubled"].weight_grids["depthwise_kernel"] == model["doubled"].weight_grids["depthwise_kernel"]
        assert (changed["stem"].weights["kernel"] != model["stem"].weights["kernel"]).any()

    @pytest.mark.parametrize("bits", [3, 8])
    @pytest.mark.parametrize("mode", ["sequential", "parallel"])
    def test_the_outputs_come_nearer_to_the_float_model(self, mode, bits):
        graph, samples, model = start("convolutions", bits)
        changed, outcomes = reconstruct(
            graph, model, calibration_of(samples), Reconstruction("best", METHODS["best"], mode=mode)
        )
        wanted = float_tensors(graph, ["logits"], those_seen(samples))["logits"]
        before, after = (
            np.square(tensors(v, ["logits"], those_seen(samples))["logits"] - wanted).sum() for v in (model, changed)
        )
        assert after < (0.8 if bits == 3 else 1.1) * before
        assert all(o.after <= o.before for o in outcomes if o.kept)


class TestResults:
    @pytest.mark.parametrize(
        ("name", "method", "per_channel"),
        [
            *((name, method, True) for name in GRAPHS for method in ("least_squares", "adaquant")),
            *((name, "least_squares", False) for name in GRAPHS),
            *((name, "adaquant", False) for name in ("convolutions", "shared")),  # every kind of weight
        ],
    )
    def test_weights_lie_on_their_grids_and_nothing_else_has_changed(self, name, method, per_channel):
        graph = operator_graphs.ALL[name]()
        samples = draw(graph)
        model = specified(graph, samples, Precision(weight_bits=4), per_channel=per_channel)
        changed, outcomes = reconstruct(graph, model, calibration_of(samples), Reconstruction(method, METHODS[method]))
        kept = {o.name for o in outcomes if o.kept}
        groups = {graph[n].group for n in kept}
        snapped = snap(changed)
        for old, new, exact in zip(graph.nodes, changed.nodes, snapped.nodes, strict=True):
            assert (old.name, old.kind, old.inputs, old.activation) == (new.name, new.kind, new.inputs, new.activation)
            if new.group not in groups:
                assert_untouched(old, new)
                continue
            kernel = next(n for n in new.weights if n != "bias")
            np.testing.assert_array_equal(exact.weights[kernel], new.weights[kernel])
            assert set(new.weights) == set(old.weights)
            for weight in new.weights:
                assert new.weights[weight].dtype == np.float32
                assert new.weights[weight].shape == old.weights[weight].shape
                assert changed[new.name].weight_grids[weight].bits == model[new.name].weight_grids[weight].bits
        for tensor, grid in changed.grids.items():
            if grid != model.grids[tensor]:
                reader = graph.readers[tensor]
                assert method == "adaquant"
                assert len(reader) == 1
                assert has_own_input_grid(graph, reader[0])

    def test_calls_of_one_keras_layer_keep_equal_weights(self):
        graph, samples, model = start("shared", bits=3)
        changed, outcomes = reconstruct(graph, model, calibration_of(samples), Reconstruction("x", METHODS["best"]))
        assert [o.name for o in outcomes] == ["conv_right", "dense_right"]
        assert all(o.kept for o in outcomes)
        for kind in ("conv", "dense"):
            right, left = (changed[f"{kind}_{side}"] for side in ("right", "left"))
            for weight in right.weights:
                np.testing.assert_array_equal(right.weights[weight], left.weights[weight])
                assert (right.weights[weight] != graph[right.name].weights[weight]).any()
            assert changed[right.name].weight_grids["kernel"].scale == changed[left.name].weight_grids["kernel"].scale

    @pytest.mark.parametrize("mode", ["sequential", "parallel"])
    @pytest.mark.parametrize("method", ["least_squares", "adaquant"])
    def test_the_same_seed_gives_the_same_bytes(self, method, mode):
        graph, samples, model = start("shared")
        runs = [
            reconstruct(graph, model, calibration_of(samples), Reconstruction("x", METHODS[method], mode=mode), seed=5)
            for _ in range(2)
        ]
        assert_equal(*runs)

    def test_another_seed_looks_at_other_positions(self):
        # more positions than are sampled of each layer
        make = operator_graphs._Builder(0)
        make.input("image", (40, 40, 1))
        make.conv("conv", "image", 1, 2, 3)
        graph = make.graph(("conv",))
        samples = draw(graph)
        model = specified(graph, samples, Precision(weight_bits=3))
        spies = [Spy(METHODS["nearest"]) for _ in range(2)]
        for seed, spy in enumerate(spies):
            reconstruct(graph, model, calibration_of(samples), Reconstruction("x", spy), seed=seed)
        first, second = (spy.problems["conv"].inputs for spy in spies)
        assert first.shape == second.shape
        assert len(first) < 24 * 40 * 40
        assert (first != second).any()

    @pytest.mark.parametrize("count", [1, 2, 7, 8, 20])
    @pytest.mark.parametrize("mode", ["sequential", "parallel"])
    def test_few_samples(self, mode, count):
        graph, samples, model = start("convolutions")
        spy = Spy()
        _, outcomes = reconstruct(
            graph, model, calibration_of(few(samples, count)), Reconstruction("x", spy, mode=mode)
        )
        assert len(outcomes) == 8
        for o in outcomes:
            problem = spy.problems[o.name]
            assert np.isfinite([o.before, o.after]).all()
            assert o.before > 0  # something has judged it
            assert len(problem.inputs) == len(problem.targets) > 0
            assert len(problem.held_inputs) == len(problem.held_targets) > 0

    @pytest.mark.filterwarnings("error")
    @pytest.mark.parametrize("name", GRAPHS)
    def test_one_sample_of_every_graph(self, name):
        graph, samples, model = start(name)
        _, outcomes = reconstruct(graph, model, calibration_of(few(samples, 1)), Reconstruction("x", LEAST_SQUARES))
        assert all(np.isfinite([o.before, o.after]).all() for o in outcomes)

    @pytest.mark.parametrize("mode", ["sequential", "parallel"])
    @pytest.mark.parametrize("name", GRAPHS)
    def test_what_does_not_fit_into_memory_changes_nothing(self, name, mode):
        graph, samples, model = start(name)
        given = graph, model, calibration_of(samples), Reconstruction("x", LEAST_SQUARES, mode=mode)
        assert_equal(*(reconstruct(*given, resources=Resources(limit)) for limit in (0, 20_000, 2**30)))

    @pytest.mark.slow
    @pytest.mark.parametrize("method", ["best", "adaround"])
    def test_two_workers_give_what_one_gives(self, method):
        graph, samples, model = start("convolutions")
        given = graph, model, calibration_of(samples), Reconstruction("x", METHODS[method], mode="parallel")
        alone, shared = (reconstruct(*given, seed=2, resources=Resources(workers=count)) for count in (1, 2))
        assert [o.name for o in alone[1]] == [o.name for o in shared[1]]
        assert_equal(alone, shared)

    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["convolutions", "transformer"])
    def test_the_exported_file_holds_the_codes(self, name):
        graph, samples, model = start(name)
        changed, _ = reconstruct(graph, model, calibration_of(samples), Reconstruction("x", METHODS["best"]))
        content = export_quantized(changed, operator_graphs.representative(samples))
        assert verify_structure(content, changed).weights


def assert_untouched(before, after):
    assert before.name == after.name
    assert set(before.weights) == set(after.weights)
    assert all(after.weights[name] is array for name, array in before.weights.items())


def assert_equal(first, *others):
    """Models with the same bits, and the same outcomes."""
    for other in others:
        assert first[1] == other[1]
        assert Specification.of(first[0]) == Specification.of(other[0])
        for one, another in zip(first[0].nodes, other[0].nodes, strict=True):
            assert set(one.weights) == set(another.weights)
            for weight in one.weights:
                np.testing.assert_array_equal(one.weights[weight], another.weights[weight])


class Counting:
    """Progress that remembers [steps done, total] of every task."""

    def __init__(self):
        self.done = {}

    @contextlib.contextmanager
    def task(self, description, total, *, expected_seconds=0.0):  # noqa: ARG002
        self.done[description] = [0, total]

        def advance(steps):
            self.done[description][0] += steps

        yield advance


class TestChoices:
    def test_layers_are_the_products_in_order_without_float_layers_and_second_calls(self):
        for name in GRAPHS:
            graph, _, model = start(name)
            found = reconstructed_names(model)
            order = [n.name for n in graph.nodes]
            assert sorted(found, key=order.index) == found
            assert all(is_weighted(graph[n]) and model[n].precision.is_int8 for n in found)
            groups = {n.group for n in graph.nodes if is_weighted(n) and model[n.name].precision.is_int8}
            assert [graph[n].group for n in found] == list(dict.fromkeys(graph[n].group for n in found))
            assert {graph[n].group for n in found} == groups
        assert reconstructed_names(start("shared")[2]) == ["conv_right", "dense_right"]

    @pytest.mark.parametrize(("count", "chosen"), [(3, [1]), (7, [5]), (8, [3]), (24, [3, 10, 17])])
    def test_the_rows_of_the_samples_to_choose_by(self, count, chosen):
        found = np.flatnonzero(rows_to_choose_by(Roles.of(count), 3))
        assert found.tolist() == [3 * c + i for c in chosen for i in range(3)]

    def test_without_such_a_sample_every_eighth_position_is_chosen_by(self):
        for count in (1, 2):
            assert np.flatnonzero(rows_to_choose_by(Roles.of(count), 20)).tolist() == [7, 15]

    def test_only_an_input_grid_that_nothing_else_depends_on_is_free(self):
        graph = start("convolutions")[0]
        found = {n.name: has_own_input_grid(graph, n.name) for n in graph.nodes if is_weighted(n)}
        assert not found["stem"]  # the model's input
        assert not found["zero_bias"]  # its input is added too
        assert {n for n, own in found.items() if own} >= {"depthwise", "doubled", "no_bias", "logits"}
        assert not has_own_input_grid(start("transformer")[0], "query")  # shared with key and value

    def test_progress_counts_layers_and_samples(self):
        graph, samples, model = start("shared")
        progress = Counting()
        reconstruct(
            graph,
            model,
            calibration_of(samples),
            Reconstruction("nearest", METHODS["nearest"]),
            resources=Resources(progress=progress),
        )
        assert progress.done == {"run the float model": [21, 21], "reconstruct the layers, nearest": [2, 2]}


def test_rows_are_not_more_than_the_sampled_positions():
    graph, samples, model = start("convolutions")
    spy = Spy(METHODS["nearest"])
    reconstruct(graph, model, calibration_of(samples), Reconstruction("x", spy))
    shapes = tensor_shapes(graph)
    for name, problem in spy.problems.items():
        positions = np.prod(shapes[name][:-1], dtype=int)
        assert len(problem.inputs) + len(problem.held_inputs) <= 24 * positions
