"""Metadata written into real models: read back by hand, and run by both interpreters."""

import dataclasses
import io
import struct
import zipfile

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from ai_edge_litert.interpreter import Interpreter
from hypothesis import given, settings
from hypothesis import strategies as st
from metadata_reader import read_metadata

from tfq.export.flatbuffer import parse, text
from tfq.export.metadata import ModelMetadata, TensorMetadata, add_metadata

LABELS = ("cat", "Straße", "猫", "")
RECIPE = '{\n "model": "m.h5",\n "seed": 3\n}'


@pytest.fixture(scope="module")
def model():
    inputs = [tf_keras.Input((n,), name=name) for name, n in (("zeta", 3), ("alpha", 5), ("mid", 2))]
    outputs = [tf_keras.layers.Dense(4, name=f"out_{i.name}")(i) for i in inputs[:2]]
    outputs.append(tf_keras.layers.Dense(2, name="last")(inputs[2]))
    return tf.lite.TFLiteConverter.from_keras_model(tf_keras.Model(inputs, outputs)).convert()


@pytest.fixture(scope="module")
def image_model():
    inputs = tf_keras.Input((8, 8, 3), name="image")
    outputs = tf_keras.layers.Dense(4, name="scores")(tf_keras.layers.Flatten()(inputs))
    return tf.lite.TFLiteConverter.from_keras_model(tf_keras.Model(inputs, outputs)).convert()


IMAGE_METADATA = ModelMetadata(
    "classifier",
    "what it does",
    inputs=(TensorMetadata("image", "RGB", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375), (-2.1,), (2.6,)),),
    outputs=(TensorMetadata("scores", minimum=(-9,), maximum=(11,), labels=LABELS),),
    tfq_version="0.1.0",
    recipe=RECIPE,
)
MANY = ModelMetadata(
    "many",
    inputs=tuple(TensorMetadata(n) for n in ("zeta", "alpha", "mid")),
    outputs=(
        TensorMetadata("out_zeta", labels=("a", "b", "c", "d")),
        TensorMetadata("out_alpha"),
        TensorMetadata("last", labels=("yes", "no")),
    ),
)


def run(interpreter_class, content, seed=0):
    interpreter = interpreter_class(model_content=content)
    interpreter.allocate_tensors()
    generator = np.random.default_rng(seed)
    for details in interpreter.get_input_details():
        interpreter.set_tensor(details["index"], generator.standard_normal(details["shape"]).astype(np.float32))
    interpreter.invoke()
    return [interpreter.get_tensor(d["index"]) for d in interpreter.get_output_details()]


@pytest.mark.parametrize("interpreter_class", [Interpreter, tf.lite.Interpreter])
def test_the_model_computes_the_same_in_both_interpreters(model, image_model, interpreter_class):
    for content, metadata in ((model, MANY), (image_model, IMAGE_METADATA)):
        for before, after in zip(
            run(interpreter_class, content), run(interpreter_class, add_metadata(content, metadata)), strict=True
        ):
            np.testing.assert_array_equal(before, after)


def test_round_trip(image_model):
    assert read_metadata(add_metadata(image_model, IMAGE_METADATA)) == IMAGE_METADATA


def test_tensors_are_described_in_the_order_of_the_file(model):
    found = read_metadata(add_metadata(model, MANY))
    names = [d["name"] for d in Interpreter(model_content=model).get_input_details()]
    assert [f"serving_default_{t.name}:0" for t in found.inputs] == names
    assert set(found.inputs) == set(MANY.inputs)
    assert set(found.outputs) == set(MANY.outputs)
    shapes = [d["shape"][-1] for d in Interpreter(model_content=model).get_output_details()]
    assert all(len(t.labels) in (0, n) for t, n in zip(found.outputs, shapes, strict=True))


def test_same_bytes_again_and_after_a_second_time(model, image_model):
    for content, metadata in ((model, MANY), (image_model, IMAGE_METADATA)):
        once = add_metadata(content, metadata)
        assert add_metadata(content, metadata) == once
        assert add_metadata(once, metadata) == once
        changed = add_metadata(once, dataclasses.replace(metadata, name="other"))
        assert changed == add_metadata(content, dataclasses.replace(metadata, name="other"))


def test_label_files_are_stored_uncompressed_behind_the_model(image_model):
    content = add_metadata(image_model, IMAGE_METADATA)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        (entry,) = archive.infolist()
        assert entry.filename == "labels.txt"
        assert entry.compress_type == zipfile.ZIP_STORED
        assert archive.read(entry).decode() == "cat\nStraße\n猫\n\n"
    assert content[4:8] == b"TFL3"


def test_a_model_without_labels_gets_no_archive(image_model):
    output = dataclasses.replace(IMAGE_METADATA.outputs[0], labels=())
    content = add_metadata(image_model, dataclasses.replace(IMAGE_METADATA, outputs=(output,)))
    assert not zipfile.is_zipfile(io.BytesIO(content))
    assert read_metadata(content).outputs == (output,)


class Reader:
    """A decoder of flatbuffer tables with nothing but `struct`; field numbers are those of the public schema."""

    def __init__(self, data, position):
        self.data, self.position = data, position

    @classmethod
    def root(cls, data):
        return cls(data, struct.unpack_from("<I", data, 0)[0])

    def _at(self, field):
        vtable = self.position - struct.unpack_from("<i", self.data, self.position)[0]
        size = struct.unpack_from("<H", self.data, vtable)[0]
        if 4 + 2 * field >= size:
            return 0
        offset = struct.unpack_from("<H", self.data, vtable + 4 + 2 * field)[0]
        return offset and self.position + offset

    def _follow(self, position):
        return position + struct.unpack_from("<I", self.data, position)[0]

    def byte(self, field):
        return self.data[self._at(field)] if self._at(field) else 0

    def _vector(self, field):
        start = self._follow(self._at(field))
        return start + 4, struct.unpack_from("<I", self.data, start)[0]

    def string(self, field):
        start, length = self._vector(field)
        assert self.data[start + length] == 0
        return self.data[start : start + length].decode()

    def floats(self, field):
        start, length = self._vector(field)
        return list(struct.unpack_from(f"<{length}f", self.data, start))

    def table(self, field):
        return Reader(self.data, self._follow(self._at(field)))

    def tables(self, field):
        start, length = self._vector(field)
        return [Reader(self.data, self._follow(start + 4 * k)) for k in range(length)]

    def has(self, field):
        return self._at(field) != 0


def buffers(content):
    parsed = parse(content)
    return {text(m.name): bytes(parsed.buffers[m.buffer].data) for m in parsed.metadata}


def test_fields_lie_where_the_public_schema_puts_them(image_model):
    found = buffers(add_metadata(image_model, IMAGE_METADATA))
    assert set(found) >= {"TFLITE_METADATA", "tfq_recipe", "min_runtime_version"}
    assert found["tfq_recipe"] == b'{\n "tfq": "0.1.0",\n "recipe": {\n  "model": "m.h5",\n  "seed": 3\n }\n}'
    data = found["TFLITE_METADATA"]
    assert data[4:8] == b"M001"
    root = Reader.root(data)
    assert [root.string(k) for k in (0, 1, 2, 7)] == ["classifier", "what it does", "", "1.0.0"]
    (subgraph,) = root.tables(3)
    ((image,), (scores,)) = subgraph.tables(2), subgraph.tables(3)
    assert [image.string(0), image.string(1)] == ["image", ""]
    content = image.table(3)
    assert content.byte(0) == 2  # ImageProperties
    assert content.table(1).byte(0) == 1  # RGB
    (unit,) = image.tables(4)
    assert unit.byte(0) == 1  # NormalizationOptions
    assert unit.table(1).floats(0) == pytest.approx([123.675, 116.28, 103.53])
    assert unit.table(1).floats(1) == pytest.approx([58.395, 57.12, 57.375])
    assert image.table(5).floats(0) == pytest.approx([2.6])  # max
    assert image.table(5).floats(1) == pytest.approx([-2.1])  # min
    assert not image.has(6)
    assert scores.table(3).byte(0) == 1  # FeatureProperties
    assert not scores.has(4)
    (file,) = scores.tables(6)
    assert file.string(0) == "labels.txt"
    assert file.byte(2) == 2  # TENSOR_AXIS_LABELS


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n"), max_size=8)
floats = st.lists(st.floats(-1e6, 1e6, width=32), max_size=3).map(tuple)


@settings(max_examples=40, deadline=None)
@given(
    texts, texts, texts, floats, floats, floats, st.sampled_from(["", "RGB", "GRAYSCALE"]), st.lists(texts).map(tuple)
)
def test_any_metadata_survives_the_round_trip(
    image_model, name, description, version, mean, minimum, maximum, color_space, labels
):
    metadata = ModelMetadata(
        name,
        description,
        (TensorMetadata("image", color_space, mean, mean, minimum, maximum),),
        (TensorMetadata("scores", labels=labels),),
        version,
    )
    assert read_metadata(add_metadata(image_model, metadata)) == metadata


def test_metadata_of_another_model_is_refused(image_model):
    with pytest.raises(ValueError, match=r"the model's inputs are \['image'\], the metadata describes \['picture'\]"):
        add_metadata(image_model, dataclasses.replace(IMAGE_METADATA, inputs=(TensorMetadata("picture"),)))
    with pytest.raises(ValueError, match="the model's outputs are"):
        add_metadata(image_model, dataclasses.replace(IMAGE_METADATA, outputs=IMAGE_METADATA.outputs * 2))


def test_a_model_without_metadata_is_said_to_have_none(image_model):
    with pytest.raises(ValueError, match="has no TFLite metadata; its metadata buffers are"):
        read_metadata(image_model)


def test_impossible_tensors_are_refused():
    with pytest.raises(ValueError, match=r"color_space \(='BGR'\)"):
        TensorMetadata("i", color_space="BGR")
    with pytest.raises(ValueError, match="2 means for 1 standard"):
        TensorMetadata("i", mean=(1, 2), std=(1,))
    with pytest.raises(ValueError, match="line break"):
        TensorMetadata("i", labels=("a\nb",))
