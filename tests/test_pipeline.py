"""The whole road on the demo model, in one process."""

import dataclasses
import functools
import json
import pathlib
import re

import numpy as np
import pytest

import tfq
from tfq.errors import UserError
from tfq.execution.interpreter import TfliteModel
from tfq.execution.predict import predict
from tfq.execution.progress import SILENT
from tfq.export import flatbuffer
from tfq.inputs import Inputs
from tfq.models.equality import run_graph
from tfq.models.graph import Graph, Node
from tfq.models.load import load_model
from tfq.models.prepare import prepare
from tfq.models.widths import activation_bits, assign_precisions
from tfq.numerics import reference
from tfq.pipeline import quantize, road
from tfq.pipeline.begin import begin
from tfq.precision import Precision
from tfq.quantized_model import QuantizedModel
from tfq.recipe import Recipe
from tfq.report.layers import layer_table
from tfq.report.summary import summary
from tfq.simulate.eager import simulate
from tfq.simulate.weights import snap
from tfq.spec import Specification
from tfq.verify.structure import verify_structure

DEMO = pathlib.Path(__file__).resolve().parents[1] / "demo"
RECIPE = Recipe(
    model=str(DEMO / "digits.keras"),
    calibration_data=str(DEMO / "calibration.npz"),
    evaluation_data=str(DEMO / "test.npz"),
    preprocess="raw",
    num_calibration_samples=200,
)


def digits():
    with np.load(DEMO / "test.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def int8():
    return quantize(RECIPE)


@pytest.fixture(scope="module")
def plain():
    """The whole-model exports by precision."""
    return {
        precision: quantize(dataclasses.replace(RECIPE, precision=precision))
        for precision in ("float32", "float16", "dynamic_range", "int16x8")
    }


FILES = {"model.tflite", "HOWTO.md", "float.tflite", "spec.json", "report.json", "report.html", "recipe.json"}


def quantized(graph, spec):
    """The model that has the weights of a prepared graph and, for the rest, what a specification says."""
    layers = {layer.name: layer for layer in spec.layers}

    def decided(node):
        node = node.replace(grid=spec.activations.get(node.name))
        if node.kind == "Input":
            return node
        layer = layers[node.name]
        return node.replace(precision=Precision(layer.precision), reason=layer.reason, weight_grids=dict(layer.weights))

    nodes = tuple(map(decided, graph.nodes))
    model = QuantizedModel(nodes, graph.inputs, graph.outputs, graph.output_names, spec.input_type, spec.output_type)
    assert Specification.of(model) == spec
    return model


def score(content):
    """Share of the test digits a file gets right, counted here and by nothing of tfq's evaluation."""
    found = digits()
    outputs = predict(content, {"image": found["x"].astype(np.float32)})[0]
    return 100 * np.mean(outputs.argmax(-1) == found["y"])


def test_files_are_the_documented_ones(int8):
    assert set(int8.files) == FILES
    assert all(int8.files.values())


def test_recipe_and_specification_are_what_was_used(int8):
    assert Recipe.from_json(int8.files["recipe.json"].decode()) == RECIPE
    spec = Specification.from_json(int8.files["spec.json"].decode())
    model = flatbuffer.parse(int8.files["model.tflite"])
    tensors = {flatbuffer.text(t.name): t for t in model.subgraphs[0].tensors}
    checked = 0
    for layer in spec.layers:
        assert layer.precision == "int8"
        for weight, grid in layer.weights.items():
            tensor = tensors[f"{layer.name}/{weight}"]
            assert flatbuffer.type_name(tensor) == grid.storage
            assert flatbuffer.scales(tensor).tolist() == list(grid.scale)
            checked += 1
    assert checked == 30
    for name, grid in spec.activations.items():
        if name in tensors:
            assert flatbuffer.scales(tensors[name]).tolist() == list(grid.scale)
            assert flatbuffer.zero_points(tensors[name]).tolist() == [grid.zero_point]


@pytest.mark.slow
def test_the_recipe_of_a_run_gives_the_same_bytes(int8):
    again = quantize(Recipe.from_json(int8.files["recipe.json"].decode()))
    for name in ("model.tflite", "float.tflite", "spec.json", "recipe.json"):
        assert again.files[name] == int8.files[name], name


def test_reported_accuracy_is_that_of_the_files(int8):
    floats, quantized = int8.report.evaluation.models
    assert (floats.name, quantized.name) == ("float", "int8")
    assert floats.score.value == pytest.approx(score(int8.files["float.tflite"]))
    assert quantized.score.value == pytest.approx(score(int8.files["model.tflite"]))
    assert floats.score.value - quantized.score.value < 1
    assert (floats.score.unit, floats.score.n) == ("%", 797)
    for found, name in ((floats, "float.tflite"), (quantized, "model.tflite")):
        assert found.size.file_bytes == len(int8.files[name])
    assert quantized.size.file_bytes < 0.4 * floats.size.file_bytes


def test_report_has_figures_for_every_layer_and_tensor(int8):
    report = json.loads(int8.files["report.json"])
    assert json.loads(int8.report.to_json()) == report
    spec = Specification.from_json(int8.files["spec.json"].decode())
    assert [x["name"] for x in report["layers"]] == [x.name for x in spec.layers]
    absent = report["verification"]["absent"]
    for layer in report["layers"]:
        assert layer["keras_layers"]
        if layer["name"] not in absent:
            assert layer["sqnr_db"] > 15
            assert layer["own_sqnr_db"] > 25
            assert layer["parity_max_steps"] in (0, 1)
            assert 0 <= layer["parity_differing"] <= 1
    weighted = [x for x in report["layers"] if x["weight_bits"] is not None]
    assert {(x["weight_bits"], x["storage"]) for x in weighted} == {(8, "int8")}
    assert sum(x["parameters"] for x in report["layers"]) == report["verification"]["integers"]

    assert {t["name"] for t in report["tensors"]} == set(spec.activations)
    for tensor in report["tensors"]:
        assert tensor["range"][0] <= 0 <= tensor["range"][1]
        if tensor["method"] == "prescribed":
            assert tensor["observed"] is tensor["histogram"] is None
            continue
        counts, edges = tensor["histogram"]["counts"], tensor["histogram"]["edges"]
        assert len(edges) == len(counts) + 1
        assert edges == sorted(edges)
        assert sum(counts) + tensor["histogram"]["zeros"] > 200
        assert tensor["observed"][0] <= tensor["observed"][1]
        assert tensor["method"] in {*tensor["errors"], "range tuning"}
    image = next(t for t in report["tensors"] if t["name"] == "image")
    assert image["observed"] == [0.0, 16.0]


def test_report_says_how_the_run_went(int8):
    report = json.loads(int8.files["report.json"])
    assert report["recipe"] == json.loads(int8.files["recipe.json"])
    assert report["calibration_samples"] == 200
    names = [stage["name"] for stage in report["stages"]]
    assert names[0] == "load the model"
    assert names[-1] == "evaluate"
    assert len(set(names)) == len(names) > 7
    assert all(s["seconds"] >= 0 and s["peak_memory_mb"] > 100 for s in report["stages"])
    assert report["preparation"]
    assert all(c["max_error"] <= c["bound"] for c in report["preparation"])
    assert [p["kernels"] for p in report["parity"]] == ["xnnpack", "builtin"]
    for parity in report["parity"]:
        assert parity["name"] == "digit"
        assert parity["samples"] > 0
        assert parity["mean_steps"] < 0.5
        assert parity["mean_steps"] <= parity["max_steps"] <= 6  # one step in several layers adds up
    assert report["guard"]["kept"] in report["guard"]["divergences"]
    assert report["verification"]["float_operators"] == 0
    assert report["model"]["framework"]
    assert report["model"]["nodes_prepared"] < report["model"]["nodes_loaded"]


def test_both_files_carry_their_recipe_as_metadata(int8):
    for name in ("model.tflite", "float.tflite"):
        model = flatbuffer.parse(int8.files[name])
        stored = {flatbuffer.text(e.name): bytes(np.asarray(model.buffers[e.buffer].data)) for e in model.metadata}
        assert "TFLITE_METADATA" in stored
        recipe = Recipe.from_json(int8.files["recipe.json"].decode())
        assert json.loads(stored["tfq_recipe"])["recipe"] == json.loads(recipe.shipped().to_json())
        assert b"/" not in stored["tfq_recipe"]  # a shipped file does not tell where it was made


def test_without_evaluation_data_agreement_is_measured_and_said(int8):
    product = quantize(dataclasses.replace(RECIPE, evaluation_data="", input_type="uint8", output_type="uint8"))
    quantized = product.report.evaluation.models[1]
    assert quantized.score is None
    assert quantized.agreement.value > 95
    assert any(w.startswith("no `evaluation`: agreement with float is measured") for w in product.report.warnings)
    model = TfliteModel(product.files["model.tflite"])
    assert {info.dtype for info in (*model.inputs, *model.outputs)} == {np.dtype("uint8")}
    assert abs(score(product.files["model.tflite"]) - score(int8.files["model.tflite"])) < 0.5


@pytest.mark.slow
def test_nothing_of_the_model_depends_on_the_samples_that_agreement_is_measured_on(tmp_path):
    """Whatever they hold, every byte stays; only what is said of them changes."""
    with np.load(DEMO / "calibration.npz") as arrays:
        images = arrays["x"][:64]
    found = []
    for name, values in (("as they are", images), ("changed", images.copy())):
        if name == "changed":
            values[5::8] = 16 - values[5::8]
        (tmp_path / name).mkdir()
        np.savez(tmp_path / name / "images.npz", x=values)
        data = str(tmp_path / name / "images.npz")
        recipe = dataclasses.replace(RECIPE, evaluation_data="", calibration_data=data)
        found.append(quantize(dataclasses.replace(recipe, weight_bits=4, pipeline="light", num_calibration_samples=64)))
    one, other = found
    assert one.files["spec.json"] == other.files["spec.json"]
    assert one.files["model.tflite"] == other.files["model.tflite"]
    assert one.report.steps == other.report.steps
    assert one.report.evaluation.models[1].agreement.n == 8
    assert one.report.evaluation.models[1].sqnr != other.report.evaluation.models[1].sqnr


@pytest.mark.parametrize("count", [1, *(pytest.param(count, marks=pytest.mark.slow) for count in (2, 5))])
def test_of_few_samples_it_is_said_what_they_are_used_for(count, tmp_path):
    with np.load(DEMO / "calibration.npz") as arrays:
        np.savez(tmp_path / "few.npz", x=arrays["x"][:count])
    recipe = dataclasses.replace(RECIPE, evaluation_data="", calibration_data=str(tmp_path / "few.npz"))
    report = quantize(recipe).report
    assert report.evaluation.models[1].agreement.n == 1
    said = [w for w in report.warnings if w.startswith(f"{count} calibration sample")]
    assert len(said) == (count < 3)
    assert report.guard.samples == 1


@pytest.mark.slow
def test_evaluation_data_without_labels(tmp_path):
    np.savez(tmp_path / "unlabelled.npz", x=digits()["x"])
    product = quantize(dataclasses.replace(RECIPE, evaluation_data=str(tmp_path / "unlabelled.npz")))
    assert product.report.evaluation.models[1].score is None
    assert product.report.evaluation.models[1].agreement.n == 797
    assert "labels" in product.report.evaluation.omitted


@pytest.mark.parametrize(
    ("changes", "bits", "least"),
    [
        ({"weight_bits": 4, "storage": "packed", "calibration_method": "minmax"}, 4, 90),
        pytest.param({"weight_bits": 4}, 4, 90, marks=pytest.mark.slow),
        pytest.param({"weight_bits": 6, "per_channel": False}, 6, 85, marks=pytest.mark.slow),
        pytest.param({"calibration_method": "percentile=99.99"}, 8, 93, marks=pytest.mark.slow),
    ],
    ids=lambda value: str(value),
)
def test_other_recipes(changes, bits, least, int8):
    product = quantize(dataclasses.replace(RECIPE, **changes))
    assert score(product.files["model.tflite"]) > least
    kernels = [x for x in product.report.layers if x.weight_bits]
    assert {x.weight_bits for x in kernels} == {bits}
    assert {x.storage for x in kernels} == {"int4" if changes.get("storage") == "packed" else "int8"}
    found = product.report.evaluation.models[1].size
    assert found.weight_bits <= bits + 0.01
    if bits < 8:
        assert found.download_bytes < int8.report.evaluation.models[1].size.download_bytes
    assert (len(product.files["model.tflite"]) < 0.75 * len(int8.files["model.tflite"])) == ("storage" in changes)


IMPROVED = dataclasses.replace(RECIPE, num_calibration_samples=96, weight_bits=4)


@pytest.fixture(scope="module")
def improved():
    """A function: the product of a pipeline with further changes to IMPROVED; each is made once."""

    @functools.cache
    def made(pipeline, **changes):
        return quantize(dataclasses.replace(IMPROVED, pipeline=pipeline, **changes))

    return made


def held_back_divergence(product, samples):
    """Mean KL divergence of a product's file from its float model, on inputs, computed from the two files."""
    p, q = (predict(product.files[name], {"image": samples})[0] for name in ("float.tflite", "model.tflite"))
    p, q = (np.clip(x.astype(np.float64), 1 / 512, None) for x in (p, q))
    p, q = (x / x.sum(-1, keepdims=True) for x in (p, q))
    return (p * np.log(p / q)).sum(-1).mean()


class TestPipelines:
    @pytest.mark.parametrize("pipeline", [pytest.param("light", marks=pytest.mark.slow), "advanced"])
    def test_the_file_is_verified_and_reported_step_by_step(self, pipeline, improved):
        product = improved(pipeline)
        report = json.loads(product.files["report.json"])
        assert [s["name"] for s in report["steps"]] == ["range tuning", "weight scales", "reconstruction"]
        assert set(product.files) == FILES
        assert report["verification"]["float_operators"] == 0
        assert product.report.verification.weights == 15
        assert score(product.files["model.tflite"]) > 90
        assert product.report.evaluation.models[1].score.value == pytest.approx(score(product.files["model.tflite"]))
        assert {x["weight_bits"] for x in report["layers"] if x["weight_bits"]} == {4}
        assert all(x["parity_max_steps"] in (0, 1, None) for x in report["layers"])

        weighted = [x for x in report["layers"] if x["weight_bits"]]
        for layer in report["layers"]:
            found = layer["reconstruction"]
            assert len(found) == (1 if layer in weighted else 0)
            for outcome in found:
                assert outcome["method"] == {"light": "least_squares", "advanced": "best"}[pipeline]
                assert outcome["kept"] == (outcome["after"] <= outcome["before"])
                assert bool(outcome["reason"]) != outcome["kept"]
                assert outcome["before"] > 0
        for step in report["steps"]:
            for guard in step["guards"]:
                candidate, before = guard["divergences"]
                rise = guard["divergences"][candidate] - guard["divergences"][before]
                assert guard["kept"] == (candidate if rise <= guard["standard_error"] else before)
                assert guard["samples"] == 12
        names = [stage["name"] for stage in report["stages"]]
        assert "fit weight scales" in names
        assert "tune all biases" not in names

    def test_tunings_are_tried_where_layers_are_not_reconstructed(self, improved):
        _ranges, _scales, layers = improved("light").report.steps
        assert len(layers.layers) == 15
        assert any(x.kept for x in layers.layers)
        *_, tuning = improved("light", reconstruction="none").report.steps
        assert tuning.name == "batch-norm tuning"
        assert len(tuning.guards) == 1

    @pytest.mark.slow
    def test_the_nearest_rounding_of_3_bits_is_beaten_on_unseen_digits(self, improved):
        """By a wide margin, on digits that no part of the run has seen, and by those held back."""
        nearest, light, advanced = (improved(p, weight_bits=3) for p in ("int8", "light", "advanced"))
        unseen = digits()["x"].astype(np.float32)
        found = [held_back_divergence(product, unseen) for product in (nearest, light, advanced)]
        assert found[2] < 0.5 * found[0]
        assert found[2] < found[1] < found[0]
        assert score(advanced.files["model.tflite"]) > score(nearest.files["model.tflite"])
        guards = [g.divergences for s in advanced.report.steps for g in s.guards if not g.rolled_back]
        first, last = guards[0]["before"], next(iter(guards[-1].values()))
        assert last < 0.5 * first

    @pytest.mark.slow
    def test_a_parallel_pass_is_followed_by_a_sequential_one_and_workers_change_nothing(self, improved):
        alone = improved("advanced", mode="parallel")
        names = [next(iter(g.divergences)) for s in alone.report.steps for g in s.guards]
        assert names[1] == "best, parallel"
        assert names[-1] == "best, sequential"
        assert [len(x.reconstruction) for x in alone.report.layers if x.weight_bits] == [2] * 15
        shared = improved("advanced", mode="parallel", workers=2)
        assert shared.files["spec.json"] == alone.files["spec.json"]
        assert constants(shared.files["model.tflite"]) == constants(alone.files["model.tflite"])

    @pytest.mark.slow
    def test_the_same_recipe_gives_the_same_bytes(self, improved):
        first = improved("advanced")
        again = quantize(Recipe.from_json(first.files["recipe.json"].decode()))
        for name in ("model.tflite", "float.tflite", "spec.json", "recipe.json"):
            assert again.files[name] == first.files[name], name
        assert again.report.steps == first.report.steps

    @pytest.mark.slow
    def test_memory_for_activations_changes_nothing(self, improved):
        product = improved("advanced", memory_limit=64)
        assert product.files["spec.json"] == improved("advanced").files["spec.json"]

    @pytest.mark.slow
    def test_packed_storage_computes_what_int8_storage_does(self, improved):
        plain, packed = improved("advanced"), improved("advanced", storage="packed")
        assert packed.report.steps == plain.report.steps
        assert len(packed.files["model.tflite"]) < 0.8 * len(plain.files["model.tflite"])
        samples = {"image": digits()["x"].astype(np.float32)}
        outputs = [predict(p.files["model.tflite"], samples, delegate=False)[0] for p in (plain, packed)]
        np.testing.assert_array_equal(*outputs)

    @pytest.mark.parametrize("method", [pytest.param("published", marks=pytest.mark.slow), "expected"])
    def test_equalisation_of_weights_with_one_scale_per_tensor(self, method, improved):
        plain = improved("int8", per_channel=False, equalization="none")
        equal = improved("int8", per_channel=False, equalization=method)
        unseen = digits()["x"].astype(np.float32)
        assert held_back_divergence(equal, unseen) < 1.3 * held_back_divergence(plain, unseen)
        assert equal.report.verification.weights == 15
        assert any(s.name == "equalise" for s in equal.report.stages)
        assert not any(s.name == "equalise" for s in plain.report.stages)
        assert [step.name for step in equal.report.steps] == ["equalisation", "range tuning", "bias correction"]
        assert [step.name for step in plain.report.steps] == ["range tuning", "bias correction"]
        names = [stage.name for stage in equal.report.stages]
        assert names.count("calibrate") == 2  # the equalised model has ranges of its own

    def test_one_scale_per_tensor_and_plain_int8_are_equalised_by_default(self):
        for pipeline, per_channel, wanted in (
            ("int8", True, "expected"),
            ("light", True, "none"),
            ("advanced", False, "expected"),
        ):
            recipe = dataclasses.replace(IMPROVED, pipeline=pipeline, per_channel=per_channel)
            assert recipe.equalization_method == wanted
        assert dataclasses.replace(RECIPE, precision="float16").equalization_method == "none"

    @pytest.mark.slow
    def test_a_simulation_is_improved_too(self, improved):
        nearest, better = (
            improved(p, weight_bits=3, activation_bits=4, first_last_bits=8) for p in ("int8", "advanced")
        )
        assert "model.tflite" not in better.files
        found = [p.report.evaluation.models[1].sqnr.value for p in (nearest, better)]
        assert found[1] > found[0] + 1


class TestDistillation:
    """`distillation_data`: further inputs that the whole network learns from."""

    @pytest.mark.slow
    def test_it_is_a_step_of_the_run_and_learns_from_none_that_judge(self):
        arrays = digits()
        with np.load(DEMO / "calibration.npz") as file:
            calibration = file["x"]
        further = np.concatenate([calibration, arrays["x"][:50]])  # those that calibrate, and 50 of the test
        found = tfq.quantize(
            DEMO / "digits.keras",
            calibration[:128],
            evaluation=(arrays["x"], arrays["y"]),
            preprocess="raw",
            weight_bits=2,
            pipeline="light",
            reconstruction="none",
            batch_norm_tuning="none",
            distillation_data=further,
            distillation_steps=60,
        )
        (step,) = (step for step in found.report.steps if step.name == "distillation")
        (guard,) = step.guards
        judging = 16  # of 128 that calibrate
        assert (guard.kept, guard.samples) == ("tuned", (len(further) - judging - 50) // 8)
        assert f"{judging + 50} of the {len(further)} distillation samples judge the model" in "\n".join(
            found.report.warnings
        )
        assert found.report.recipe.distillation_data == "<ndarray>"
        assert found.report.distillation_samples == len(further) - judging - 50

    @pytest.mark.slow
    def test_without_further_inputs_it_learns_from_those_that_calibrate(self):
        changes = {"pipeline": "light", "weight_bits": 2, "distill": True, "distillation_steps": 8}
        found = quantize(dataclasses.replace(RECIPE, **changes))
        assert [step.name for step in found.report.steps][-1] == "distillation"

    def test_too_few_are_told_before_the_work(self):
        with pytest.raises(UserError, match="there are 20 distillation samples to learn from; expected at least 64"):
            tfq.quantize(
                DEMO / "digits.keras",
                str(DEMO / "calibration.npz"),
                preprocess="raw",
                pipeline="light",
                distillation_data=digits()["x"][:20],
            )


def constants(content):
    """Tensor name -> its bytes, of every constant."""
    model = flatbuffer.parse(content)
    return {
        flatbuffer.text(t.name): bytes(np.asarray(model.buffers[t.buffer].data, np.uint8))
        for t in model.subgraphs[0].tensors
        if flatbuffer.is_constant(model, t)
    }


@pytest.fixture(scope="module")
def simulated():
    return quantize(dataclasses.replace(RECIPE, weight_bits=4, activation_bits=4, first_last_bits=8))


class TestSimulatedActivations:
    def test_there_is_no_model_but_everything_else(self, simulated, int8):
        assert set(simulated.files) == {"float.tflite", "spec.json", "report.json", "report.html", "recipe.json"}
        models = simulated.report.evaluation.models
        assert [m.name for m in models] == ["float", "W4A4 simulated"]
        assert (models[1].size, models[1].latency) == (None, None)
        assert models[1].simulated == "TFLite has no kernels for 4-bit activations"
        assert simulated.report.verification is None
        assert [s.name for s in simulated.report.stages if s.name in ("export", "verify")] == []
        # the same float model, down to the recipe in its metadata
        assert models[0].size.weights == int8.report.evaluation.models[0].size.weights
        assert models[0].score == int8.report.evaluation.models[0].score

    def test_the_score_is_that_of_the_specification_applied_by_hand(self, simulated):
        """Node by node in float32, each tensor put on its grid by the NumPy reference."""
        samples = {"image": digits()["x"].astype(np.float32)[:64]}
        graph = prepare(load_model(DEMO / "digits.keras").graph, {"image": samples["image"][:8]}).graph
        w4a4 = Precision(weight_bits=4, activation_bits=4)
        graph, precisions = assign_precisions(graph, w4a4, first_last_bits=8)
        spec = Specification.from_json(simulated.files["spec.json"].decode())
        model = quantized(graph, spec)
        assert {n for n, g in spec.activations.items() if g.bits == 4} == set(activation_bits(graph, precisions))
        values = dict(samples)
        for node in snap(model).nodes:
            if node.kind != "Input":
                alone = Graph(
                    (
                        *(Node(i, "Input", {"shape": values[i].shape[1:], "dtype": "float32"}) for i in node.inputs),
                        node,
                    ),
                    node.inputs,
                    (node.name,),
                )
                (values[node.name],) = run_graph(alone, {i: values[i] for i in node.inputs})
            grid = spec.activations[node.name]
            values[node.name] = reference.fake_quantize(
                values[node.name], grid.scale[0], grid.zero_point, *grid.integer_range
            )
        found = simulate(model, samples)["digit"]
        np.testing.assert_array_equal(found.argmax(-1), values[graph.outputs[0]].argmax(-1))
        np.testing.assert_allclose(found, values[graph.outputs[0]], atol=2 / 256)

    def test_the_report_and_the_summary_mark_it(self, simulated):
        report = json.loads(simulated.files["report.json"])
        bits = {t["name"]: t["bits"] for t in report["tensors"]}
        assert set(bits.values()) == {4, 8}
        assert bits["image"] == bits["digit"] == 8
        assert report["evaluation"]["models"][1]["size"] is None
        text = summary(simulated.report, pathlib.Path("out"))
        assert "W4A4 simulated: no file, so no size and no latency; TFLite has no kernels for 4-bit" in text
        assert text.endswith("model:  none, simulated only: TFLite has no kernels for 4-bit activations")
        assert "model.tflite" not in text
        assert " 4 bit " in layer_table(report, re.compile("block1"), "order")

    @pytest.mark.slow
    def test_more_bits_are_better(self, simulated):
        wide = quantize(dataclasses.replace(RECIPE, weight_bits=4, activation_bits=7, first_last_bits=8))
        assert wide.report.evaluation.models[1].sqnr.value > simulated.report.evaluation.models[1].sqnr.value + 1


@pytest.mark.slow
def test_first_and_last_layer_at_8_bits_in_a_real_file(int8):
    product = quantize(dataclasses.replace(RECIPE, weight_bits=3, first_last_bits=8))
    bits = {x.name: x.weight_bits for x in product.report.layers if x.weight_bits}
    assert {name for name, b in bits.items() if b == 8} == {"stem", "digit"}
    assert set(bits.values()) == {3, 8}
    assert product.report.verification.weights == int8.report.verification.weights


class TestPlainExports:
    def test_they_keep_the_accuracy(self, plain):
        for precision, product in plain.items():
            assert score(product.files["model.tflite"]) > 94, precision
            exported = product.report.evaluation.models[1]
            assert exported.name == precision.replace("_", " ")
            assert exported.score.value == pytest.approx(score(product.files["model.tflite"]))
            assert exported.agreement.value > 99

    def test_float32_is_the_baseline(self, plain):
        product = plain["float32"]
        assert product.report.evaluation.models[1].agreement.value == 100
        np.testing.assert_array_equal(
            *(
                predict(product.files[n], {"image": digits()["x"].astype(np.float32)})[0]
                for n in ("model.tflite", "float.tflite")
            )
        )

    def test_sizes_are_in_order(self, plain, int8):
        size = {precision: len(product.files["model.tflite"]) for precision, product in plain.items()}
        assert 0.45 < size["float16"] / size["float32"] < 0.62
        assert size["dynamic_range"] < 0.45 * size["float32"]
        assert size["int16x8"] < 0.45 * size["float32"]
        assert len(int8.files["model.tflite"]) < size["float16"]

    def test_the_specification_says_what_the_file_holds(self, plain):
        stored_as = {"float32": {"float32"}, "float16": {"float16"}, "dynamic_range": {"int8"}, "int16x8": {"int8"}}
        for precision, product in plain.items():
            spec = Specification.from_json(product.files["spec.json"].decode())
            assert {x.precision for x in spec.layers} <= {precision, "float16", "float32"}
            assert all(x.reason for x in spec.layers)
            model = flatbuffer.parse(product.files["model.tflite"])
            subgraph = model.subgraphs[0]
            tensors = {flatbuffer.text(t.name): t for t in subgraph.tensors}
            sources = {
                flatbuffer.text(subgraph.tensors[o.outputs[0]].name): subgraph.tensors[o.inputs[0]]
                for o in subgraph.operators
                if flatbuffer.operator_name(model, o) == "DEQUANTIZE"
            }
            for layer in spec.layers:
                for kernel in ("kernel", "depthwise_kernel"):
                    name = f"{layer.name}/{kernel}"
                    if name in tensors:
                        found = flatbuffer.type_name(sources.get(name, tensors[name]))
                        assert found in stored_as[layer.precision], (precision, name)
            if precision == "int16x8":
                assert spec.activations
                assert {g.storage for g in spec.activations.values()} == {"int16"}
            else:
                assert not spec.activations

    def test_the_report_has_no_figures_that_were_not_measured(self, plain):
        for precision, product in plain.items():
            report = json.loads(product.files["report.json"])
            assert (report["verification"] is None) == (precision != "dynamic_range")
            assert report["tensors"] == []
            assert all(x["parity_max_steps"] is None for x in report["layers"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metric": "top2"}, "metric"),
        ({"model": "nowhere.keras"}, "nowhere.keras"),
        ({"labels": "nowhere.txt"}, "nowhere.txt"),
    ],
)
def test_what_cannot_be_is_an_error_of_the_user(changes, message):
    with pytest.raises(UserError) as caught:
        quantize(dataclasses.replace(RECIPE, **changes))
    assert message in str(caught.value)


def test_the_specification_is_verified_against_the_described_file(int8):
    """Metadata must not have changed a tensor: the final file, not only the one before packaging, is as specified."""
    run = begin(RECIPE, Inputs.of(RECIPE), SILENT)
    model = road._fitted(run, None).model  # once more, with the biases that it found
    assert Specification.of(model).to_json() == int8.files["spec.json"].decode()
    found = verify_structure(int8.files["model.tflite"], model)
    assert found == int8.report.verification
