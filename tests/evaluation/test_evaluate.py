import json

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from tfq.data.samples import Samples
from tfq.errors import UserError
from tfq.evaluation.agreement import gives_classes
from tfq.evaluation.evaluate import Simulated, check_metric, evaluate, few_outputs, input_signatures
from tfq.evaluation.latency import Timing
from tfq.evaluation.metrics import find_metric
from tfq.execution.interpreter import TfliteModel


def samples_of(arrays, labels=None):
    return Samples(arrays, np.arange(len(next(iter(arrays.values())))), labels)


@pytest.fixture(scope="module")
def judged(classifier):
    """(evaluation of the classifier with labels that it misses now and then, float outputs, int8 outputs, labels)."""
    _, images, first, second = classifier
    outputs = [TfliteModel(content).run({"image": images})[0] for content in (first, second)]
    generator = np.random.default_rng(0)
    labels = np.where(generator.uniform(size=120) < 0.7, outputs[0].argmax(1), generator.integers(0, 4, 120))
    models = {"float": first, "int8": second}
    found = evaluate(models, samples_of({"image": images}, labels), metric="top1", timing=Timing(runs=8, seconds=0))
    return found, *outputs, labels


def test_scores_and_their_difference(judged):
    found, first, second, labels = judged
    right = [100 * (outputs.argmax(1) == labels) for outputs in (first, second)]
    assert found["float"].score.value == pytest.approx(right[0].mean())
    assert found["int8"].score.value == pytest.approx(right[1].mean())
    assert found["float"].difference is None
    difference = found["int8"].difference
    assert difference.value == pytest.approx(right[1].mean() - right[0].mean(), abs=1e-9)
    error = np.std(right[1] - right[0]) / np.sqrt(120)
    unseen = 100 * (1 - 0.025 ** (1 / 120))  # where no sample differs
    assert difference.low <= difference.value <= difference.high
    assert difference.high - difference.low == pytest.approx(2 * (1.96 * error or unseen), rel=0.25, abs=1e-9)
    assert (difference.unit, difference.n, found.samples, found.outputs) == ("points", 120, 120, ("probabilities",))


def test_agreement_with_the_baseline(judged):
    found, first, second, _ = judged
    assert found["float"].agreement is None
    assert found["int8"].agreement.value == pytest.approx(100 * np.mean(first.argmax(1) == second.argmax(1)))
    sqnr = 10 * np.log10(np.sum(np.float64(first) ** 2) / np.sum((np.float64(first) - second) ** 2))
    assert found["int8"].sqnr.value == pytest.approx(sqnr)
    assert found["int8"].sqnr.low <= sqnr <= found["int8"].sqnr.high


def test_json_holds_every_number(judged):
    found = judged[0]
    data = json.loads(found.to_json())
    assert [model["name"] for model in data["models"]] == ["float", "int8"]
    assert data["models"][1]["score"]["value"] == found["int8"].score.value
    assert len(data["models"][0]["latency"]["times_ms"]) == 8
    assert data["confidence"] == 0.95


def test_same_seed_same_evaluation(classifier):
    _, images, first, second = classifier
    samples = samples_of({"image": images}, np.arange(120) % 4)
    runs = [evaluate({"a": first, "b": second}, samples, seed=5, threads=t, timing=None) for t in (1, 2)]
    assert runs[0] == runs[1]


def test_without_labels_the_agreement_stays(classifier):
    _, images, first, second = classifier
    found = evaluate({"float": first, "int8": second}, samples_of({"image": images}), timing=None)
    assert found.omitted == "metric top1 needs labels, and the data has none"
    assert found["int8"].score is None
    assert found["int8"].agreement.value > 50
    assert found["int8"].latency is None


def test_a_model_against_itself_is_equal(classifier):
    _, images, first, _ = classifier
    found = evaluate({"a": first, "b": first}, samples_of({"image": images}), metric="sqnr", timing=None)
    assert found["b"].agreement.value == 100
    assert found["b"].sqnr.value is None
    assert found["b"].difference.value is None
    json.loads(found.to_json())


def test_autoencoder_by_auc(autoencoder):
    keras_model, samples, first, second = autoencoder
    error = np.square(keras_model(samples).numpy() - samples).mean(axis=1)
    labels = (error + np.random.default_rng(0).normal(size=80) / 5 > np.median(error)).astype(int)
    found = evaluate({"f": first, "q": second}, samples_of({"signal": samples}, labels), metric="auc", timing=None)
    assert (found["q"].agreement, found.higher_is_better) == (None, True)
    assert found["q"].sqnr.value > 10
    for name, content in (("f", first), ("q", second)):
        (outputs,) = TfliteModel(content).run({"signal": samples})
        error = np.square(np.float64(outputs) - samples).mean(axis=1)
        pairs = [(a > b) + (a == b) / 2 for a in error[labels == 1] for b in error[labels == 0]]
        assert found[name].score.value == pytest.approx(np.mean(pairs))


def test_several_inputs_and_signatures(two_inputs):
    content = two_inputs[1]
    signatures = {s.name: (s.shape, s.dtype) for s in input_signatures(content)}
    assert signatures == {"left": ((3,), "float32"), "ids": ((2,), "int32")}
    generator = np.random.default_rng(0)
    arrays = {"left": generator.normal(size=(20, 3)).astype(np.float32), "ids": generator.integers(0, 5, (20, 2))}
    found = evaluate({"a": content, "b": content}, samples_of(arrays), metric="mse", timing=Timing(runs=4, seconds=0))
    assert found["b"].score.value == 0
    assert found["a"].latency.runs == 4


def test_quantized_inputs_take_real_values(classifier):
    (signature,) = input_signatures(classifier[3])
    assert (signature.name, signature.shape, signature.dtype) == ("image", (8, 8, 1), "float32")


def test_models_that_do_not_match(classifier, autoencoder, two_inputs):
    images, first = classifier[1:3]
    with pytest.raises(UserError, match=r"'signal' has the shape \[any, 6\]"):
        evaluate({"a": first, "b": autoencoder[2]}, samples_of({"image": images}), timing=None)
    with pytest.raises(UserError, match="the data serves image"):
        evaluate({"a": first, "b": two_inputs[1]}, samples_of({"image": images}), timing=None)


def test_outputs_of_other_shapes(batch_traps):
    samples = samples_of({"x": np.ones((3, 4), np.float32)})
    with pytest.raises(UserError, match="compare like with like"):
        evaluate({"a": batch_traps["fails"], "b": batch_traps["mixes samples"]}, samples, timing=None)


def test_outputs_that_are_not_finite(autoencoder):
    broken = np.ones((5, 6), np.float32)
    broken[3] = np.inf
    with pytest.raises(UserError, match=r"a gives NaN or infinite values in output .* for 1 of 5"):
        evaluate({"a": autoencoder[2]}, samples_of({"signal": broken}), metric="mse", timing=None)


@pytest.mark.parametrize(
    ("outputs", "judged_so", "expected"),
    [
        ([[0.25, 0.74], [1.0, 0.0]], False, True),
        ([[1.5, -0.5], [0.0, 1.0]], False, False),
        ([[0.5, 0.9], [0.0, 1.0]], False, False),
        ([[0.5, 9.0], [0.0, -1.0]], True, True),  # logits
        ([[0.3], [0.9]], True, True),
        ([[0.3], [0.9]], False, False),
        ([[-3.0], [0.9]], True, False),  # a regression, judged by the default metric
        ([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], True, False),  # the input's shape
    ],
)
def test_where_the_largest_output_means_a_class(outputs, judged_so, expected):
    assert gives_classes(np.array(outputs), {"x": np.zeros((2, 3))}, judged_so=judged_so) == expected


def test_autoencoder_without_labels_and_with_the_default_metric(autoencoder):
    _, samples, first, second = autoencoder
    found = evaluate({"f": first, "q": second}, samples_of({"signal": samples}), timing=None)
    assert found.omitted
    assert found["q"].agreement is None
    assert found["q"].sqnr.value > 10


def test_outputs_are_matched_by_name(two_inputs):
    """The same outputs in the other order compare equal."""
    content = two_inputs[1]
    parsed = schema.ModelT.InitFromPackedBuf(content, 0)
    parsed.subgraphs[0].outputs = parsed.subgraphs[0].outputs[::-1]
    builder = flatbuffers.Builder(1024)
    builder.Finish(parsed.Pack(builder), b"TFL3")
    swapped = bytes(builder.Output())
    assert [o.name for o in TfliteModel(swapped).outputs] == [o.name for o in TfliteModel(content).outputs][::-1]
    arrays = {"left": np.ones((5, 3), np.float32), "ids": np.array([[0, 1], [2, 3], [4, 0], [1, 2], [3, 4]])}
    found = evaluate({"a": content, "b": swapped}, samples_of(arrays), metric="mse", timing=None)
    assert found["b"].score.value == 0
    assert set(found.outputs) == {"sum", "product"}


def test_a_simulation_is_scored_as_a_file_is_and_has_neither_size_nor_latency(classifier):
    _, images, first, second = classifier
    samples = samples_of({"image": images}, np.arange(120) % 4)
    outputs = {"probabilities": TfliteModel(second).run({"image": images})[0]}
    models = {"float": first, "W4A4": Simulated(outputs, "no kernels"), "int8": second}
    found = evaluate(models, samples, timing=Timing(runs=4, seconds=0))
    assert [m.name for m in found.models] == ["float", "W4A4", "int8"]
    simulated, file = found["W4A4"], found["int8"]
    for measure in ("score", "difference", "agreement", "sqnr"):
        assert getattr(simulated, measure) == getattr(file, measure)
    assert (simulated.size, simulated.latency, simulated.simulated) == (None, None, "no kernels")
    assert file.size.file_bytes == len(second)
    assert (file.simulated, file.latency.runs) == ("", 4)
    data = json.loads(found.to_json())
    assert data["models"][1]["size"] is None


def test_outputs_of_a_simulation_are_checked_too(classifier):
    _, images, first, _ = classifier
    samples = samples_of({"image": images})
    with pytest.raises(UserError, match="compare like with like"):
        evaluate({"a": first, "b": Simulated({"x": np.zeros((120, 3))}, "why")}, samples, timing=None)
    with pytest.raises(UserError, match="b gives NaN or infinite values"):
        evaluate({"a": first, "b": Simulated({"x": np.full((120, 4), np.nan)}, "why")}, samples, timing=None)


def tried(metric, content, samples):
    """What a metric says beforehand of a file and samples."""
    outputs, names = few_outputs(content, samples)
    assert {len(values) for values in outputs} == {min(len(samples), 8)}
    check_metric(metric, samples, outputs, names)


def test_a_metric_is_tried_against_all_labels_on_a_few_outputs(classifier):
    _, images, content, _ = classifier
    labels = np.arange(120) % 4
    tried("top1", content, samples_of({"image": images}, labels))
    tried("top1", content, samples_of({"image": images}))  # without labels there will be no score
    tried("mse", content, samples_of({"image": images}))
    labels[-1] = 4
    with pytest.raises(UserError, match="the labels reach 0 to 4, the model has 4 classes"):
        tried("top1", content, samples_of({"image": images}, labels))
    judge = find_metric("top1", outputs=["logits"])
    with pytest.raises(UserError, match="`outputs` names 'logits'; the model's outputs are "):
        tried(judge, content, samples_of({"image": images}))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("None", r"returned nothing \(None\); expected one number or \[120\] scores"),
        ("float('nan')", "returned NaN"),
        ("'good'", "returned a str that holds no numbers"),
        ("[1, 2]", r"returned the shape \(2,\)"),
        ("exit()", r"failed: it calls sys.exit\(None\), which would end tfq"),
        ("1 / 0", "failed: ZeroDivisionError: division by zero"),
    ],
)
def test_a_metric_of_the_user_that_fails_is_told_beforehand(body, message, classifier, tmp_path):
    (tmp_path / "own.py").write_text(f"def score(outputs, labels): return {body}\n")
    with pytest.raises(UserError, match=message):
        tried(f"{tmp_path / 'own.py'}:score", classifier[2], samples_of({"image": classifier[1]}))


def test_models_of_fixed_batch_and_several_outputs_can_be_tried(three_at_a_time, two_inputs):
    tried("mse", three_at_a_time, samples_of({"x": np.ones((7, 2), np.float32)}))
    arrays = {"left": np.ones((5, 3), np.float32), "ids": np.zeros((5, 2), np.int32)}
    tried("sqnr", two_inputs[1], samples_of(arrays))
