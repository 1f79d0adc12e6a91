import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfq.errors import UserError
from tfq.execution.interpreter import TensorInfo, TfliteModel, parse_tflite
from tfq.execution.predict import predict
from tfq.execution.resources import Resources


def reference_run(content: bytes, inputs: dict[int, np.ndarray]) -> list[np.ndarray]:
    """Raw outputs of TensorFlow's own interpreter, called directly."""
    import tensorflow as tf

    interpreter = tf.lite.Interpreter(model_content=content)
    for index, values in inputs.items():
        interpreter.resize_tensor_input(index, values.shape)
    interpreter.allocate_tensors()
    for index, values in inputs.items():
        interpreter.set_tensor(index, values)
    interpreter.invoke()
    return [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]


def test_names_and_grids_of_inputs_and_outputs(classifier):
    *_, content = classifier
    model = TfliteModel(content)
    (image,), (probabilities,) = model.inputs, model.outputs
    assert (image.name, image.shape, image.dtype) == ("image", (-1, 8, 8, 1), np.int8)
    assert 4 / 255 * 0.99 < image.scale[0] < 4 / 255 * 1.01
    assert image.zero_point == (-128,)
    assert (probabilities.name, probabilities.shape) == ("probabilities", (-1, 4))
    assert (probabilities.scale, probabilities.zero_point) == ((1 / 256,), (-128,))


@pytest.mark.parametrize("runtime", ["litert", "tensorflow"])
def test_float_model_computes_what_keras_computes(classifier, runtime):
    keras_model, images, content, _ = classifier
    (outputs,) = TfliteModel(content, runtime=runtime).run({"image": images})
    np.testing.assert_allclose(outputs, keras_model(images).numpy(), atol=1e-5)


@pytest.mark.parametrize("runtime", ["litert", "tensorflow"])
def test_int8_model_equals_the_interpreter_called_by_hand(classifier, runtime):
    _, images, _, content = classifier
    model = TfliteModel(content, runtime=runtime)
    (image,), (probabilities,) = model.inputs, model.outputs
    integers = np.clip(np.rint(images / np.float32(image.scale[0])) + image.zero_point[0], -128, 127).astype(np.int8)
    (expected,) = reference_run(content, {image.index: integers})
    (raw,) = model.run_raw({"image": integers})
    np.testing.assert_array_equal(raw, expected)
    (real,) = model.run({"image": images})
    assert real.dtype == np.float32
    np.testing.assert_array_equal(real, (expected.astype(np.float32) + 128) / 256)
    assert probabilities.scale == (1 / 256,)


def test_several_inputs_and_outputs_go_by_name(two_inputs):
    keras_model, content = two_inputs
    generator = np.random.default_rng(0)
    inputs = {"ids": generator.integers(0, 5, (7, 2)), "left": generator.normal(size=(7, 3))}
    expected = keras_model([inputs["left"].astype(np.float32), inputs["ids"].astype(np.int32)])
    model = TfliteModel(content)
    by_name = dict(zip([info.name for info in model.outputs], model.run(inputs), strict=True))
    for name, values in zip(["sum", "product"], expected, strict=True):
        np.testing.assert_allclose(by_name[name], values.numpy(), atol=1e-6)


def test_wrong_inputs_are_told_by_name(two_inputs):
    model = TfliteModel(two_inputs[1])
    left, ids = np.zeros((1, 3)), np.zeros((1, 2))
    with pytest.raises(UserError, match="got left"):
        model.run({"left": left})
    with pytest.raises(UserError, match=r"'left' has the shape \[any, 3\], got \[1, 4\]"):
        model.run({"left": np.zeros((1, 4)), "ids": ids})
    with pytest.raises(UserError, match="fractions"):
        model.run({"left": left, "ids": ids + 0.5})
    with pytest.raises(UserError, match="int32"):
        model.run({"left": left, "ids": np.array([[0, 2**40]])})
    with pytest.raises(UserError, match="takes float32 elements, got float64"):
        model.run_raw({"left": left, "ids": ids.astype(np.int32)})
    assert len(model.run({"left": left, "ids": ids})) == 2, "an error must not spoil the model"


def test_nan_is_not_turned_into_an_integer(classifier):
    with pytest.raises(UserError, match="NaN"):
        TfliteModel(classifier[3]).run({"image": np.full((1, 8, 8, 1), np.nan)})


@given(
    scale=st.floats(2**-13, 8, width=32),
    zero_point=st.integers(-128, 127),
    values=st.lists(st.floats(-10000, 10000, width=32), min_size=1, max_size=20),
)
def test_to_raw_finds_the_nearest_integer_of_the_grid(scale, zero_point, values):
    info = TensorInfo("x", 0, (-1,), np.dtype(np.int8), (float(np.float32(scale)),), (zero_point,))
    raw = info.to_raw(np.float32(values))
    grid = info.to_real(np.arange(-128, 128, dtype=np.int8)).astype(np.float64)
    best = np.abs(np.float64(np.float32(values))[:, None] - grid).min(axis=1)
    got = np.abs(np.float64(np.float32(values)) - info.to_real(raw))
    np.testing.assert_allclose(got, best, rtol=1e-5, atol=2e-5 * scale * 256)


def test_per_channel_grid_broadcasts_over_its_axis():
    info = TensorInfo("w", 0, (2, 3), np.dtype(np.int8), (0.5, 2.0, 4.0), (0, 0, 0), axis=1)
    raw = np.array([[1, 1, 1], [-3, 3, 5]], np.int8)
    np.testing.assert_array_equal(info.to_real(raw), [[0.5, 2, 4], [-1.5, 6, 20]])
    np.testing.assert_array_equal(info.to_raw(info.to_real(raw)), raw)


@pytest.mark.parametrize("delegate", [False, True])
def test_intermediate_tensors(classifier, delegate):
    keras_model, images, content, quantized = classifier
    image = images[:1]
    model = TfliteModel(content, preserve_all=True, delegate=delegate)
    (outputs,) = model.run({"image": image})
    hidden = next(info for info in model.all_tensors if info.shape[1:] == (3, 3, 6)).name
    np.testing.assert_allclose(model.tensors([hidden])[hidden], keras_model.layers[0](image).numpy(), atol=1e-5)
    last = next(info.name for info in model.all_tensors if info.index == model.outputs[0].index)
    np.testing.assert_array_equal(model.tensors([last])[last], outputs)

    model = TfliteModel(quantized, preserve_all=True, delegate=delegate)
    model.run({"image": image})
    hidden = next(info for info in model.all_tensors if info.shape[1:] == (3, 3, 6) and info.dtype == np.int8).name
    np.testing.assert_allclose(model.tensors([hidden])[hidden], keras_model.layers[0](image).numpy(), atol=0.1)


def test_intermediate_tensors_need_preserve_all(classifier):
    with pytest.raises(ValueError, match="preserve_all"):
        TfliteModel(classifier[2]).tensors([])


def test_state_does_not_leak_from_one_sample_to_the_next(lstm):
    keras_model, content = lstm
    steps = np.random.default_rng(5).normal(size=(6, 5, 3)).astype(np.float32)
    expected = np.concatenate([keras_model(sample[None]).numpy() for sample in steps])
    (outputs,) = predict(content, {"steps": steps}, threads=2)
    np.testing.assert_allclose(outputs, expected, atol=1e-5)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("which", [2, 3])
def test_predict_equals_one_by_one_in_order(classifier, which, threads):
    images, content = classifier[1], classifier[which]
    model = TfliteModel(content)
    expected = np.concatenate([model.run({"image": image[None]})[0] for image in images])
    (outputs,) = predict(content, {"image": images}, threads=threads, batch_size=7)
    np.testing.assert_allclose(outputs, expected, atol=1e-6)
    batches = ({"image": images[start : start + 50]} for start in range(0, 120, 50))
    (outputs,) = predict(content, batches, threads=threads, batch_size=7)
    np.testing.assert_allclose(outputs, expected, atol=1e-6)


def test_batches_are_not_used_where_they_fail_or_mix_samples(batch_traps):
    x = np.random.default_rng(6).normal(size=(9, 4)).astype(np.float32)
    for content in batch_traps.values():
        (info,) = TfliteModel(content).inputs
        assert info.shape == (-1, 4)
        expected = [reference_run(content, {info.index: sample[None]})[0] for sample in x]
        (outputs,) = predict(content, {info.name: x})
        np.testing.assert_allclose(outputs, np.concatenate(expected), atol=1e-6)


def test_fixed_batch_is_filled_and_cut(three_at_a_time):
    x = np.arange(14, dtype=np.float32).reshape(7, 2)
    (outputs,) = predict(three_at_a_time, {TfliteModel(three_at_a_time).inputs[0].name: x}, threads=2)
    np.testing.assert_array_equal(outputs, 2 * x + np.array([0, 1, 2, 0, 1, 2, 0])[:, None])


def test_predict_shows_every_sample(classifier):
    class Recorder:
        def __init__(self):
            self.done = []

        def task(self, description, total):
            self.description, self.total = description, total
            return self

        def __enter__(self):
            return self.done.append

        def __exit__(self, *_):
            pass

    progress = Recorder()
    predict(classifier[2], {"image": classifier[1]}, description="score", resources=Resources(progress=progress))
    assert (progress.description, progress.total, sum(progress.done)) == ("score", 120, 120)


def test_errors_of_workers_arrive_and_end_the_run(classifier):
    images = classifier[1].copy()
    images[70] = np.nan
    before = threading.active_count()
    with pytest.raises(UserError, match="NaN"):
        predict(classifier[3], {"image": images}, batch_size=10, threads=2)
    assert threading.active_count() == before


def test_predict_without_samples(classifier):
    with pytest.raises(UserError, match="no samples"):
        predict(classifier[2], {"image": classifier[1][:0]})
    with pytest.raises(UserError, match="same number of samples"):
        predict(classifier[2], {"image": classifier[1], "other": classifier[1][:3]})


def test_invocations_leave_python_free(classifier):
    """While one thread is inside an invocation, another goes on counting: the GIL is released."""
    model = TfliteModel(classifier[2])
    model.run({"image": np.zeros((20000, 8, 8, 1), np.float32)})
    count, counted, finished = 0, [], threading.Event()

    def work():
        for _ in range(20):
            before = count
            model.invoke()
            counted.append(count - before)
        finished.set()

    worker = threading.Thread(target=work)
    worker.start()
    while not finished.is_set():
        count += 1
    worker.join()
    assert sum(c > 1000 for c in counted) >= 3, counted


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"the model .*none\.tflite cannot be read: no such file"):
        TfliteModel(tmp_path / "none.tflite")


def test_file_of_another_kind(tmp_path):
    path = tmp_path / "text.tflite"
    path.write_text("I am a text, and a rather long one at that.")
    with pytest.raises(UserError, match=r"text\.tflite is not a \.tflite file"):
        TfliteModel(path)
    with pytest.raises(UserError, match=r"not a \.tflite"):
        parse_tflite(b"")


DAMAGED = """
import sys
import numpy as np
from tfq.errors import UserError
from tfq.execution.interpreter import TfliteModel

whole = open(sys.argv[1], "rb").read()
generator = np.random.default_rng(0)
refused = ran = 0
for attempt in range(400):
    damaged = bytearray(whole)
    if attempt < 200:
        damaged = damaged[: generator.integers(8, len(whole))]
    else:
        for place in generator.integers(8, len(whole), 4):
            damaged[place] = generator.integers(256)
    try:
        model = TfliteModel(bytes(damaged))
        model.run_raw({i.name: np.zeros(np.abs(i.shape), i.dtype) for i in model.inputs})
        ran += 1
    except UserError as error:
        assert "\\n" not in str(error)
        refused += 1
print(refused, ran)
"""


@pytest.mark.parametrize("which", [2, 3])
def test_damaged_files_are_refused_without_a_crash(classifier, tmp_path, which):
    (tmp_path / "model.tflite").write_bytes(classifier[which])
    script = [sys.executable, "-c", DAMAGED, str(tmp_path / "model.tflite")]
    done = subprocess.run(script, capture_output=True, text=True, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"})
    assert done.returncode == 0, done.stderr[-2000:]
    refused, ran = map(int, done.stdout.split())
    assert refused >= 200
    assert refused + ran == 400


@pytest.mark.parametrize("runtime", ["litert", "tensorflow"])
def test_operator_that_the_runtime_lacks(needs_tensorflow, runtime):
    with pytest.raises(UserError, match=f"the model cannot be run by {runtime}: Select TensorFlow op"):
        TfliteModel(needs_tensorflow, runtime=runtime)
