"""The steps of the pipelines: what they are fitted to, what judges them, and what is rolled back."""

import dataclasses
import functools

import numpy as np
import operator_graphs
import pytest
from keras_outputs import predict_list
from operator_graphs import calibration_of, draw, specified
from scipy.special import softmax
from scipy.stats import entropy

import tfq.reconstruction.network_tuning
from tfq.calibration.calibrate import calibrate
from tfq.models.graph import build_model
from tfq.precision import Precision
from tfq.recipe import CHOICES, Recipe
from tfq.reconstruction import steps
from tfq.reconstruction.methods import METHODS
from tfq.reconstruction.problem import Solution
from tfq.reconstruction.reconstruct import LayerReconstruction, Reconstruction
from tfq.reconstruction.steps import (
    FITTING,
    TUNING,
    Setting,
    StepOutcome,
    correct_all_biases,
    fit_weight_scales,
    reconstruct_in_sequence,
    reconstruct_layers,
    tune_batch_norms,
    tune_whole_network,
    wanted,
)
from tfq.simulate.judge import Judge, Verdict
from tfq.simulate.wrap import build_simulation
from tfq.spec import Specification

PIPELINES = {name: FITTING[name] + TUNING[name] for name in FITTING}


def spoiled(problem, _):
    """Zero weights; the bias far off."""
    nearest = problem.nearest()
    return Solution(np.zeros_like(nearest.codes), nearest.scales, nearest.bias + 3 * problem.has_bias)


def setting(graph, samples, *, method="least_squares", mode="sequential", **changes):
    calibration = calibration_of(samples)

    def recalibrate(changed):
        seen = calibration.seen.read()
        return calibrate(changed, [seen], method="minmax", total=len(calibration.seen)).ranges

    how = method and Reconstruction(getattr(method, "__name__", method), METHODS.get(method, method), mode)
    defaults = {
        "judge": Judge(graph, calibration.judging.arrays),
        "reconstruction": how,
        "states": "least_squares",
        "tunes_batch_norms": True,
        "tunes_network": True,
        "recalibrate": recalibrate,
    }
    return Setting(calibration=calibration, **(defaults | changes))


def judging(shared):
    """The samples by which the steps of a setting are judged."""
    return {name: np.asarray(values) for name, values in shared.judge._samples.items()}


@functools.cache
def start(bits=3):
    graph = operator_graphs.convolutions()
    samples = draw(graph)
    return graph, samples, specified(graph, samples, Precision(weight_bits=bits))


def judged_divergence(graph, model, samples):
    """Mean divergence on the samples 7, 15 and 23: KL of the logits that the graph's softmax reads."""
    feeds = [samples[name][7::8] for name in graph.inputs]
    models = build_model(graph, outputs=["logits"]), build_simulation(model, outputs=["logits"])
    (y,), (q,) = (predict_list(built, feeds) for built in models)
    return entropy(softmax(y, -1), softmax(q, -1), axis=-1).mean()


def test_the_pipelines_are_the_table_of_the_paper():
    """Rows of docs and of Hubara et al. 2020: light without gradients, advanced with all steps; distillation last."""
    assert {name: [step.__name__ for step in found] for name, found in PIPELINES.items()} == {
        "int8": ["correct_all_biases"],
        "light": ["fit_weight_scales", "reconstruct_layers", "tune_batch_norms", "distil"],
        "advanced": [
            "fit_weight_scales",
            "reconstruct_layers",
            "tune_batch_norms",
            "tune_whole_network",
            "reconstruct_in_sequence",
            "distil",
        ],
    }


class TestSamples:
    def test_no_method_and_no_tuning_sees_what_judges(self, monkeypatch):
        """Samples held back are marked by a value that nothing else holds."""
        graph, samples, model = start()
        marked = {"image": samples["image"].copy()}
        marked["image"][7::8] = 1000.0
        given = {}

        def method(problem, _):
            given[problem.name] = problem.inputs
            return problem.nearest()

        def recorded(name, function):
            def call(*arguments, **options):
                samples = arguments[-1]
                given[name] = getattr(samples, "seen", samples).read()["image"]
                return function(*arguments, **options)

            return call

        monkeypatch.setattr(steps, "tune_batch_norm", recorded("batch norm", steps.tune_batch_norm))
        monkeypatch.setattr(steps, "tune_network", recorded("network", steps.tune_network))
        shared = setting(graph, marked, method=method, mode="parallel")
        for step in PIPELINES["advanced"]:
            model, _ = step(shared, model)
        assert {"stem", "batch norm", "network"} <= set(given)
        for name in ("stem", "batch norm", "network"):
            assert given[name].max() < 100, name
        assert (judging(shared)["image"] == 1000).all()

    @pytest.mark.slow
    def test_whatever_the_samples_that_judge_hold_the_same_is_proposed(self, monkeypatch):
        """Everything proposed is accepted; what comes out may not depend on the samples that judge."""
        graph, samples, model = start()

        def accepting(_judge, fallback, candidates, **_):
            return [fallback, *candidates][-1][1], ()

        monkeypatch.setattr(Judge, "keep_best", accepting)
        monkeypatch.setattr(tfq.reconstruction.network_tuning, "is_proved", lambda _: True)
        found = []
        for factor in (1.0, -50.0):
            changed = {"image": samples["image"].copy()}
            changed["image"][7::8] *= factor
            shared, made = setting(graph, changed, method="best", mode="parallel"), model
            for step in PIPELINES["advanced"]:
                made, _ = step(shared, made)
            found.append(made)
        one, other = found
        assert Specification.of(one) == Specification.of(other)
        assert Specification.of(one) != Specification.of(model)
        for node in one.nodes:
            for name, values in node.weights.items():
                np.testing.assert_array_equal(values, other[node.name].weights[name])


class TestVerdicts:
    @pytest.mark.parametrize("mode", ["sequential", "parallel"])
    def test_a_method_that_harms_every_layer_is_rolled_back_layer_by_layer(self, mode):
        graph, samples, model = start()
        kept, outcome = reconstruct_layers(setting(graph, samples, method=spoiled, mode=mode), model)
        assert not any(layer.kept for layer in outcome.layers)
        assert Specification.of(kept) == Specification.of(model)
        # nothing has changed, so nothing was lost either
        (guard,) = outcome.guards
        assert guard.divergences["before"] == guard.divergences[f"spoiled, {mode}"]

    def test_a_method_that_helps_layers_and_harms_the_model_is_rolled_back_for_the_model(self):
        """The layers' own guard is deceived: the method makes the rows that judge it agree. The outputs still tell."""
        graph, samples, model = start(8)

        def cheats(problem, _):
            problem.held_inputs[:], problem.held_targets[:] = 0, 0
            return Solution(np.zeros_like(problem.nearest().codes), problem.scales, np.zeros_like(problem.bias))

        kept, outcome = reconstruct_layers(setting(graph, samples, method=cheats), model)
        assert any(layer.kept for layer in outcome.layers)
        assert kept is model
        assert not outcome.kept
        (guard,) = outcome.guards
        assert guard.kept == "before"
        assert guard.rolled_back
        assert guard.samples == 3

    def test_what_helps_is_kept_and_its_figures_are_those_of_the_outputs(self):
        graph, samples, model = start()
        kept, outcome = reconstruct_layers(setting(graph, samples), model)
        assert outcome.kept
        assert kept is not model
        (guard,) = outcome.guards
        assert guard.kept == "least_squares, sequential"
        assert list(guard.divergences) == ["least_squares, sequential", "before"]
        for found, of in ((kept, guard.kept), (model, "before")):
            assert guard.divergences[of] == pytest.approx(judged_divergence(graph, found, samples), rel=1e-3)
        assert guard.divergences[guard.kept] < guard.divergences["before"]
        assert [layer.name for layer in outcome.layers][:2] == ["stem", "depthwise"]

    @pytest.mark.parametrize("pipeline", ["light", pytest.param("advanced", marks=pytest.mark.slow)])
    def test_no_pipeline_makes_the_judged_outputs_worse(self, pipeline):
        graph, samples, model = start()
        shared, found = setting(graph, samples, mode="parallel"), [judged_divergence(graph, start()[2], samples)]
        for step in PIPELINES[pipeline]:
            before, (model, outcome) = model, step(shared, model)
            found.append(judged_divergence(graph, model, samples))
            assert found[-1] <= found[-2] * (1 + 1e-6), outcome.name
            assert outcome.kept == (model is not before)
        assert found[-1] < 0.8 * found[0]

    def test_a_bias_correction_is_kept_if_it_does_not_lose(self, monkeypatch):
        graph, samples, model = start()
        shared, correct = setting(graph, samples, method=None), steps.correct_biases
        kept, outcome = correct_all_biases(shared, model)
        assert (outcome.name, outcome.kept) == ("bias correction", True)
        assert judged_divergence(graph, kept, samples) < judged_divergence(graph, model, samples)

        def a_little_off(*arguments, **options):
            corrected = correct(*arguments, **options)
            stem = corrected["stem"]
            weights = {**stem.weights, "bias": stem.weights["bias"] + 1}
            return corrected.with_nodes(stem.replace(weights=weights))

        monkeypatch.setattr(steps, "correct_biases", a_little_off)
        same, outcome = correct_all_biases(shared, model)
        assert same is model
        assert not outcome.kept


class TestSteps:
    def test_scales_of_the_smallest_squared_error_change_scales_only(self):
        graph, samples, model = start()
        kept, outcome = fit_weight_scales(setting(graph, samples), model)
        assert outcome.name == "weight scales"
        assert list(outcome.guards[0].divergences) == ["squared error", "before"]
        for before, after in zip(model.nodes, kept.nodes, strict=True):
            attributes = [field.name for field in dataclasses.fields(before)]
            assert {x for x in attributes if getattr(before, x) is not getattr(after, x)} <= {"weight_grids"}
        if outcome.kept:
            assert kept["stem"].weight_grids["kernel"].scale != model["stem"].weight_grids["kernel"].scale

    def test_without_reconstruction_there_is_nothing_to_judge(self):
        graph, samples, model = start()
        for step in (reconstruct_layers, reconstruct_in_sequence):
            same, outcome = step(setting(graph, samples, method=None), model)
            assert same is model
            assert outcome.guards == outcome.layers == ()
            assert not outcome.kept

    def test_the_sequential_pass_follows_a_parallel_one_only(self):
        graph, samples, model = start()
        same, outcome = reconstruct_in_sequence(setting(graph, samples), model)
        assert same is model
        assert outcome == StepOutcome("sequential reconstruction", ())
        _, outcome = reconstruct_in_sequence(setting(graph, samples, mode="parallel"), model)
        assert list(outcome.guards[0].divergences) == ["least_squares, sequential", "before"]
        assert len(outcome.layers) == 8

    @pytest.mark.parametrize(
        ("step", "name"), [(tune_batch_norms, "batch-norm tuning"), (tune_whole_network, "network tuning")]
    )
    def test_a_tuning_is_judged_where_it_is_wanted(self, step, name):
        graph, samples, model = start()
        kept, outcome = step(setting(graph, samples), model)
        assert outcome.name == name
        for guard in outcome.guards:
            assert list(guard.divergences) == ["tuned", "before"]
            assert judged_divergence(graph, kept, samples) == pytest.approx(guard.divergences[guard.kept], rel=1e-3)
        assert outcome.kept == (kept is not model)
        unwanted = setting(graph, samples, tunes_batch_norms=False, tunes_network=False)
        assert step not in wanted(PIPELINES["advanced"], unwanted)

    def test_what_has_nothing_to_do_is_no_step_of_the_run(self):
        graph, samples, _ = start()
        idle = {"tunes_batch_norms": False, "tunes_network": False}
        every = setting(graph, samples, mode="parallel", distillation=calibration_of(samples))
        assert wanted(PIPELINES["advanced"], every) == PIPELINES["advanced"]
        assert wanted(PIPELINES["advanced"], setting(graph, samples, mode="parallel")) == PIPELINES["advanced"][:-1]
        assert wanted(PIPELINES["advanced"], setting(graph, samples)) == PIPELINES["advanced"][:-2]
        assert wanted(PIPELINES["advanced"], setting(graph, samples, **idle)) == (fit_weight_scales, reconstruct_layers)
        assert wanted(PIPELINES["light"], setting(graph, samples, method=None)) == (fit_weight_scales, tune_batch_norms)

    @pytest.mark.parametrize(
        ("options", "tunes"),
        [
            ({"pipeline": "advanced"}, (False, False)),
            ({"pipeline": "light"}, (False, False)),
            ({"pipeline": "advanced", "reconstruction": "none"}, (True, True)),
            ({"pipeline": "advanced", "reconstruction": "adaquant"}, (True, True)),
            ({"pipeline": "advanced", "batch_norm_tuning": "always"}, (True, False)),
            ({"pipeline": "advanced", "network_tuning": "always"}, (False, True)),
            ({"pipeline": "advanced", "reconstruction": "none", "network_tuning": "none"}, (True, False)),
        ],
    )
    def test_behind_least_squares_tunings_are_tried_on_request_alone(self, options, tunes):
        graph, samples, _ = start()
        found = Setting.of(Recipe(model="", **options), graph, samples, lambda _: {})
        assert (found.tunes_batch_norms, found.tunes_network) == tunes

    @pytest.mark.parametrize(
        ("options", "learned_from"),
        [({}, None), ({"distill": True}, "calibration"), ({"distillation_data": "more.npz"}, "further")],
    )
    def test_distillation_learns_from_further_samples_where_there_are_any(self, options, learned_from):
        graph, samples, _ = start()
        given = {"calibration": calibration_of(samples), "further": calibration_of(samples)}
        further = given["further"] if "distillation_data" in options else None
        recipe = Recipe(model="", pipeline="light", distillation_steps=7 if options else 1500, **options)
        found = Setting.of(recipe, given["calibration"], Judge(graph, samples), lambda _: {}, distillation=further)
        assert found.distillation is given.get(learned_from)
        assert (steps.distil in steps.wanted(steps.TUNING["light"], found)) == bool(options)
        assert found.distillation_steps == recipe.distillation_steps

    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["transformer", "islands", "shared", "arithmetic"])
    def test_models_of_other_kinds_run_through(self, name):
        graph = operator_graphs.ALL[name]()
        samples = draw(graph)
        model = specified(graph, samples, Precision(weight_bits=4))
        before = judged_divergence(graph, model, samples)
        for step in PIPELINES["advanced"]:
            model, outcome = step(setting(graph, samples, mode="parallel"), model)
            assert dataclasses.is_dataclass(outcome)
        assert judged_divergence(graph, model, samples) <= before


def test_a_step_is_kept_if_any_of_its_candidates_was():
    lost, won = Verdict("before", {"a": 2.0, "before": 1.0}, 0.1, 3), Verdict("b", {"b": 0.5, "before": 1.0}, 0.1, 3)
    assert not StepOutcome("step", (lost,)).kept
    assert StepOutcome("step", (lost, won)).kept
    layers = (LayerReconstruction("x", "best", 0.2, 0.1, kept=True),)
    assert StepOutcome("step", (won,), layers).layers == layers


def test_every_method_that_a_recipe_names_exists():
    assert set(CHOICES["reconstruction"]) - {"default", "none"} <= set(METHODS)
