"""Network tuning against gradients worked out by hand, and against what it promises to leave alone."""

import dataclasses

import numpy as np
import operator_graphs
import pytest
import tensorflow as tf
from keras_outputs import predict_list
from operator_graphs import calibration_of

from tfq.calibration.calibrate import calibrate
from tfq.calibration.specify import specify, with_scales
from tfq.data.roles import Roles
from tfq.models.graph import Graph, Node, build_model
from tfq.operations.table import OPERATORS
from tfq.precision import INT8, Precision
from tfq.reconstruction.learner import Learner, Rates, free_simulation, groups
from tfq.reconstruction.methods import METHODS
from tfq.reconstruction.network_tuning import DISTILLATION, Schedule, _between_logits, _mixtures, tune_network
from tfq.reconstruction.reconstruct import Reconstruction, reconstruct
from tfq.simulate.eager import tensors
from tfq.simulate.judge import Judge
from tfq.simulate.weights import integers, reals, snap, weight_integers
from tfq.simulate.wrap import build_simulation
from tfq.spec import Specification

STEPS = 40
MANY = 96  # samples: with a handful held back no gain is beyond chance


def biases_alone(rate):
    return Rates(biases=rate, scales=0.0, weights=0.0)


def dense_graph(head=""):
    """x [5] -> dense [4], perhaps a softmax."""
    rng = np.random.default_rng(0)
    weights = {"kernel": rng.normal(size=(5, 4)).astype(np.float32), "bias": rng.normal(size=4).astype(np.float32)}
    nodes = [
        Node("x", "Input", {"shape": (5,), "dtype": "float32"}),
        Node("dense", "Dense", {"units": 4}, ("x",), weights),
    ]
    nodes += [Node("head", head, {}, ("dense",))] if head else []
    return Graph(tuple(nodes), ("x",), (nodes[-1].name,))


def draw(count, seed=0):
    return {"x": np.random.default_rng(seed).normal(size=(count, 5)).astype(np.float32)}


def spoiled(model, amount=0.4, seed=5):
    """The model with random errors in all its biases."""
    rng = np.random.default_rng(seed)
    errors = {n.group: amount * rng.normal(size=n.weights["bias"].shape) for n in model.nodes if "bias" in n.weights}

    def changed(node):
        if node.group not in errors or "bias" not in node.weights:
            return node
        return node.replace(
            weights={**node.weights, "bias": (node.weights["bias"] + errors[node.group]).astype(np.float32)}
        )

    return model.with_nodes(*map(changed, model.nodes))


def quantized(graph, samples, precisions=INT8):
    total = len(samples[graph.inputs[0]])
    ranges = calibrate(graph, [samples], method="minmax", total=total).ranges
    return specify(graph, ranges, precisions)


def judged(graph, tuned, bad, samples):
    """(the better of two models, the verdict)."""
    return Judge(graph, samples).keep_better(("network tuning", tuned), ("spoiled", bad))


def softmax(values):
    powers = np.exp(values - values.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


@pytest.mark.parametrize("head", ["Softmax", ""])
def test_the_first_step_goes_against_the_gradient_by_the_rate_in_output_steps(head):
    """One step of Adam moves every bias by the rate, times the output's step, against the sign of its gradient."""
    graph, samples = dense_graph(head), draw(MANY)
    model = spoiled(quantized(graph, samples))
    rate = 0.5
    tuned = tune_network(graph, model, calibration_of(samples), schedule=Schedule(biases_alone(rate), 1, MANY * 6 // 8))
    fitted = Roles.of(MANY).fit
    x = samples["x"][fitted].astype(np.float64)
    y = x @ graph["dense"].weights["kernel"] + graph["dense"].weights["bias"]
    (q,) = predict_list(simulated(model), [samples["x"][fitted]])
    gradient = (softmax(q) - softmax(y)).mean(0) if head else (q - y).mean(0)
    start = snap(model)["dense"].weights["bias"]
    moved = tuned["dense"].weights["bias"] - start
    step = model.grids["dense"].scale[0]
    np.testing.assert_allclose(moved, -np.sign(gradient) * rate * step, rtol=1e-2)


def simulated(model):
    return build_simulation(model, outputs=["dense"])


@pytest.mark.parametrize("head", ["Softmax", ""])
def test_spoiled_biases_are_found_again(head):
    graph, samples = dense_graph(head), draw(64)
    model = quantized(graph, {"x": np.concatenate([samples["x"], draw(64, seed=3)["x"]])})  # nothing is clipped
    bad = spoiled(model)
    tuned = tune_network(graph, bad, calibration_of(samples), schedule=Schedule(biases_alone(1.0), 100))
    kept, verdict = judged(graph, tuned, bad, draw(64, seed=3))
    assert kept is tuned
    assert verdict.divergences["network tuning"] < 0.2 * verdict.divergences["spoiled"]
    if not head:  # the optimum is known: the mean error of each output vanishes
        x = samples["x"]
        y = predict_list(build_model(graph, outputs=["dense"]), [x])[0]
        error = predict_list(simulated(tuned), [x])[0] - y
        assert np.abs(error.mean(0)).max() < 2 * model.grids["dense"].scale[0]


@pytest.mark.parametrize("name", ["convolutions", "shared", "islands", "transformer"])
def test_weights_scales_and_ranges_stay(name):
    graph = operator_graphs.ALL[name]()
    samples = operator_graphs.draw(graph, count=MANY)
    model = spoiled(quantized(graph, samples, Precision(weight_bits=4)))
    tuned = tune_network(graph, model, calibration_of(samples), schedule=Schedule(biases_alone(1.0), STEPS))
    assert Specification.of(tuned) == Specification.of(model)
    moved = 0
    for node in model.nodes:
        before, after = weight_integers(node), weight_integers(tuned[node.name])
        for weight, codes in before.items():
            if weight == "bias":
                moved += int((after[weight] != codes).sum())
            else:
                np.testing.assert_array_equal(after[weight], codes)
        assert tuned[node.name].weights.keys() == node.weights.keys()
        if not node.precision.is_int8:
            for weight, values in node.weights.items():
                np.testing.assert_array_equal(tuned[node.name].weights[weight], values)
    assert moved > 0
    held = {key: values[7::8] for key, values in samples.items()}
    kept, verdict = judged(graph, tuned, model, held)
    assert kept is tuned
    assert verdict.divergences["network tuning"] < verdict.divergences["spoiled"]


def test_calls_of_one_layer_keep_one_bias():
    graph = operator_graphs.shared()
    samples = operator_graphs.draw(graph, count=MANY)
    tuned = tune_network(
        graph, spoiled(quantized(graph, samples)), calibration_of(samples), schedule=Schedule(biases_alone(1.0), STEPS)
    )
    for layer in ("conv", "dense"):
        first, second = (tuned[f"{layer}_{side}"].weights["bias"] for side in ("right", "left"))
        np.testing.assert_array_equal(first, second)
        assert not np.array_equal(first, graph[f"{layer}_right"].weights["bias"])


class TestLearner:
    @pytest.mark.parametrize("name", ["convolutions", "shared", "islands"])
    def test_before_the_first_step_the_simulation_is_that_of_the_model(self, name):
        graph = operator_graphs.ALL[name]()
        samples = operator_graphs.draw(graph, count=8)
        model = snap(quantized(graph, samples, Precision(weight_bits=4)))
        learners = [Learner.of(nodes, model, Rates(1.0, 1.0, 1.0)) for nodes in groups(model).values()]
        simulation = free_simulation(model, learners, graph.outputs)
        for learner in learners:
            learner.bind(simulation)
            learner.assign()
        found = predict_list(simulation, [samples[name] for name in graph.inputs])
        for one, other, output in zip(found, tensors(model, samples), graph.outputs, strict=True):
            step = model.grids[output].scale[0] if output in model.grids else 1e-4
            np.testing.assert_allclose(one, other, atol=1.01 * step)  # sums in another order may round apart
            assert np.abs(one - other).mean() < 0.2 * step

    @pytest.mark.parametrize("name", ["convolutions", "shared"])
    def test_gradients_are_those_of_what_is_put_into_the_simulation(self, name):
        """Of a sum of all weights and biases with random factors. A weight moves by a whole step, so that the sum
        changes by what the gradient that passes straight through says."""
        graph = operator_graphs.ALL[name]()
        samples = operator_graphs.draw(graph, count=8)
        model = snap(quantized(graph, samples, Precision(weight_bits=4)))
        rates = Rates(biases=0.5, scales=0.01, weights=0.25)
        learners = [Learner.of(nodes, model, rates) for nodes in groups(model).values()]
        simulation = free_simulation(model, learners, graph.outputs)
        rng = np.random.default_rng(0)
        assert max(len(learner.calls) for learner in learners) == (2 if name == "shared" else 1)
        for learner in learners:
            variables = learner.bind(simulation)
            factors = [rng.normal(size=variable.shape).astype(np.float32) for variable in variables]

            def total(variables=variables, factors=factors):
                found = [np.vdot(f, np.float64(v)) for f, v in zip(factors, variables, strict=True)]
                return sum(found)

            learner.assign()
            before, gradients = total(), learner.gradients(iter(map(tf.constant, factors)))
            for (what, move), gradient in zip(learner.moves.items(), gradients, strict=True):
                place = tuple(rng.integers(size) for size in move.shape)
                if what == "weights":
                    codes = learner.state()["codes"]
                    place = tuple(axis[0] for axis in np.nonzero(np.abs(codes) < 6))
                amount = {"weights": 1 / rates.weights, "scales": 0.05, "biases": 1.0}[what]
                moved = np.zeros(move.shape, np.float32)
                moved[place] = amount
                move.assign(moved)
                learner.assign()
                after = total()
                move.assign(np.zeros_like(moved))
                assert (after - before) / amount == pytest.approx(float(gradient[place]), rel=5e-3, abs=1e-5), what

    def test_weights_at_the_end_of_their_grid_have_no_gradient_beyond_it(self):
        graph = dense_graph()
        model = snap(quantized(graph, draw(8), Precision(weight_bits=4)))
        learner = Learner.of([model["dense"]], model, Rates(weights=1.0))
        learner.bind(free_simulation(model, [learner], ["dense"]))
        learner.moves["weights"].assign(20 * np.ones((5, 4)))
        assert (learner.state()["codes"] == 7).all()
        slopes = [tf.ones(4), tf.ones((5, 4))]
        found = dict(zip(learner.moves, learner.gradients(iter(slopes)), strict=True))
        assert not found["weights"].numpy().any()
        assert found["scales"].numpy().all()

    def test_what_has_the_rate_0_and_scales_that_are_given_do_not_learn(self):
        graph = dense_graph()
        model = snap(quantized(graph, draw(8)))
        node = model["dense"]
        assert set(Learner.of([node], model, biases_alone(1.0)).moves) == {"biases"}
        assert set(Learner.of([node], model, Rates(0.0, 1.0, 1.0)).moves) == {"scales", "weights"}
        grids = {**node.weight_grids, "kernel": dataclasses.replace(node.weight_grids["kernel"], entropy_bits=3)}
        given = node.replace(weight_grids=grids)
        assert set(Learner.of([given], model, Rates(1.0, 1.0, 1.0)).moves) == {"biases", "weights"}


def with_other_scales(model, factor=0.2, seed=5):
    """The model with random errors in the scales of its weights, whose codes stay."""
    rng = np.random.default_rng(seed)

    def changed(node):
        if node.group not in groups(model):
            return node
        name = OPERATORS[node.kind].kernel
        scales = np.asarray(node.weight_grids[name].scale)
        other = with_scales(node, scales * np.exp(factor * rng.normal(size=scales.shape)), model.grids[node.inputs[0]])
        codes = integers(node.weights[name], node.weight_grids[name])
        return other.replace(weights={**node.weights, name: reals(codes, other.weight_grids[name])})

    return model.with_nodes(*map(changed, model.nodes))


def test_spoiled_scales_are_found_again_and_nothing_else_moves():
    graph, samples = operator_graphs.convolutions(), operator_graphs.draw(operator_graphs.convolutions(), count=MANY)
    model = quantized(graph, samples, Precision(weight_bits=4))
    bad = with_other_scales(model)
    tuned = tune_network(graph, bad, calibration_of(samples), schedule=Schedule(Rates(0.0, 0.02, 0.0), 2 * STEPS))
    kept, verdict = judged(graph, tuned, bad, {name: values[7::8] for name, values in samples.items()})
    assert kept is tuned
    assert verdict.divergences["network tuning"] < 0.5 * verdict.divergences["spoiled"]
    moved = 0
    for node in bad.nodes:
        after = tuned[node.name]
        assert after.grid == node.grid
        for name, grid in node.weight_grids.items():
            moved += after.weight_grids[name].scale != grid.scale
            if name != "bias":
                np.testing.assert_array_equal(weight_integers(after)[name], weight_integers(node)[name])
        if "bias" in node.weight_grids:
            np.testing.assert_array_equal(after.weights["bias"], snap(bad)[node.name].weights["bias"])
    assert moved


def test_spoiled_weights_are_found_again():
    graph, samples = dense_graph(), draw(MANY)
    model = snap(quantized(graph, samples, Precision(weight_bits=4)))
    node, rng = model["dense"], np.random.default_rng(1)
    codes = np.clip(weight_integers(node)["kernel"] + rng.integers(-2, 3, (5, 4)), -7, 7)
    bad = model.with_nodes(node.replace(weights={**node.weights, "kernel": reals(codes, node.weight_grids["kernel"])}))
    rates = Rates(biases=0.0, scales=0.0, weights=0.2)
    tuned = tune_network(graph, bad, calibration_of(samples), schedule=Schedule(rates, 100))
    wanted, found = weight_integers(node)["kernel"], weight_integers(tuned["dense"])["kernel"]
    assert np.abs(found - wanted).mean() < 0.4 * np.abs(codes - wanted).mean()
    assert tuned["dense"].weight_grids == node.weight_grids


def test_what_cannot_be_improved_comes_back_unchanged():
    graph, samples = dense_graph(), draw(64)
    model = quantized(graph, samples)
    # steps so large that every state but the first is worse
    assert tune_network(graph, model, calibration_of(samples), schedule=Schedule(biases_alone(500.0), 4)) is model
    assert tune_network(graph, model, calibration_of(draw(1)), schedule=Schedule(Rates(), 4)) is model
    no_bias = graph["dense"].replace(
        config={"units": 4, "use_bias": False}, weights={"kernel": np.ones((5, 4), np.float32)}
    )
    bare = graph.replace_nodes([graph["x"], no_bias])
    unbiased = quantized(bare, draw(MANY))
    assert tune_network(bare, unbiased, calibration_of(samples), schedule=Schedule(Rates(), 4)) is unbiased


def test_the_same_seed_gives_the_same_model_and_another_seed_another():
    graph = operator_graphs.convolutions()
    samples = operator_graphs.draw(graph, count=MANY)
    model = spoiled(quantized(graph, samples, Precision(weight_bits=4)))
    rates = Rates(biases=1.0, scales=1e-2, weights=2e-2)

    def tuned(seed):
        found = tune_network(graph, model, calibration_of(samples), schedule=Schedule(rates, 10, 4), seed=seed)
        weights = [values.ravel() for node in found.nodes for values in node.weights.values()]
        return Specification.of(found), np.concatenate(weights)

    (one, first), (same, again), (_, other) = map(tuned, (0, 0, 1))
    assert one == same
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_the_units_of_the_network_do_not_matter(factor):
    """A network whose inputs are 1000 times as large, its first weights as much smaller, its biases like before."""
    graph, samples = dense_graph("Softmax"), draw(MANY)
    layer = graph["dense"]
    scaled = layer.replace(weights={**layer.weights, "kernel": layer.weights["kernel"] / np.float32(factor)})
    other = graph.replace_nodes([scaled if n.name == "dense" else n for n in graph.nodes])
    large = {"x": samples["x"] * np.float32(factor)}
    here = tune_network(
        graph, spoiled(quantized(graph, samples)), calibration_of(samples), schedule=Schedule(biases_alone(1.0), STEPS)
    )
    there = tune_network(
        other, spoiled(quantized(other, large)), calibration_of(large), schedule=Schedule(biases_alone(1.0), STEPS)
    )
    step = quantized(graph, samples).grids["dense"].scale[0]
    np.testing.assert_allclose(there["dense"].weights["bias"], here["dense"].weights["bias"], atol=2 * step)


def test_a_bias_too_large_for_int32_widens_its_scale():
    graph, samples = dense_graph(), draw(64)
    node = graph["dense"]
    far = node.replace(weights={**node.weights, "bias": node.weights["bias"] + np.float32(6)})
    graph = graph.replace_nodes([graph["x"], far])
    model = quantized(graph, samples)
    grids = model["dense"].weight_grids
    tiny = {n: dataclasses.replace(g, scale=tuple(s * 2.0**-20 for s in g.scale)) for n, g in grids.items()}
    narrow = model.with_nodes(model["dense"].replace(weight_grids=tiny))
    tuned = tune_network(graph, narrow, calibration_of(samples), schedule=Schedule(biases_alone(4.0), STEPS))
    assert tuned is not narrow
    bias = tuned["dense"].weights["bias"]
    scale = np.array(tuned["dense"].weight_grids["bias"].scale)
    assert (np.abs(bias / scale) < 2**30 * 1.001).all()
    np.testing.assert_allclose(snap(tuned)["dense"].weights["bias"], bias, rtol=1e-6)


def test_inputs_are_mixed_in_pairs_with_one_share_for_all_inputs_of_a_sample():
    first = np.arange(10.0, dtype=np.float32)[:, None] * np.ones((1, 3), np.float32)
    feeds = [first, 100 * first[:, :, None]]
    fitted = np.array([1, 2, 4, 5, 7, 8])
    batches = _mixtures([feed[fitted] for feed in feeds], 3, np.random.default_rng(0))
    seen = []
    for _ in range(200):
        x, y = next(batches)
        assert x.dtype == y.dtype == np.float32
        assert (x.shape, y.shape) == ((3, 3), (3, 3, 1))
        np.testing.assert_array_equal(x, x[:, :1] * np.ones((1, 3)))
        np.testing.assert_allclose(y[:, :, 0], 100 * x, rtol=1e-6)
        seen += list(x[:, 0])
    assert min(seen) >= 1
    assert max(seen) <= 8
    # more of the first sample than of the second, which are drawn alike: the mean stays
    assert np.mean(seen) == pytest.approx(fitted.mean(), abs=0.3)
    assert len(set(np.round(seen, 4))) > 500


def test_whole_numbers_are_not_mixed():
    tokens, masses = np.arange(8, dtype=np.int32)[:, None], np.arange(8, dtype=np.float32)[:, None]
    for found, weights in (next(_mixtures([tokens, masses], 4, np.random.default_rng(0))) for _ in "ab"):
        assert found.dtype == np.int32
        np.testing.assert_array_equal(found, weights)


def test_the_loss_of_logits_is_the_divergence_of_the_probabilities():
    y, q = np.random.default_rng(0).normal(size=(2, 5, 3, 7)).astype(np.float32) * 3
    p, r = softmax(y.astype(np.float64)), softmax(q.astype(np.float64))
    expected = (p * np.log(p / r)).sum(-1).mean(-1)  # over the places that have a softmax each
    np.testing.assert_allclose(_between_logits(y, q), expected, rtol=1e-4)


def test_distillation_from_further_samples_gains_on_others():
    """Behind least squares at 2 bits, learned from samples that it has not seen, judged on yet others."""
    graph = operator_graphs.convolutions()
    few, further, unseen = (operator_graphs.draw(graph, count=n, seed=s) for n, s in ((64, 0), (512, 1), (64, 2)))
    model = quantized(graph, few, Precision(weight_bits=2))
    how = Reconstruction("least_squares", METHODS["least_squares"])
    fitted, _ = reconstruct(graph, model, calibration_of(few), how)
    tuned = tune_network(graph, fitted, calibration_of(further), schedule=dataclasses.replace(DISTILLATION, steps=60))
    kept, verdict = judged(graph, tuned, fitted, unseen)
    assert kept is tuned
    assert verdict.divergences["network tuning"] < 0.9 * verdict.divergences["spoiled"]
