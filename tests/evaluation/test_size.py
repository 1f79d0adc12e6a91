import io
import zipfile

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from tfq.errors import UserError
from tfq.evaluation.size import grid_bits, measure_size
from tfq.execution.interpreter import TfliteModel


def repacked(content: bytes, change) -> bytes:
    """The model with `change(tensor, buffer)` applied to every constant int8 tensor of two axes or more."""
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    for tensor in model.subgraphs[0].tensors:
        buffer = model.buffers[tensor.buffer]
        if tensor.type == schema.TensorType.INT8 and buffer.data is not None and len(tensor.shape) > 1:
            change(tensor, buffer)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def deflated(content: bytes) -> int:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as file:
        file.writestr("model", content)
        return file.getinfo("model").compress_size


@pytest.mark.parametrize(("which", "bits"), [(2, 32), (3, 8)])
def test_sizes_of_a_model(classifier, which, bits):
    keras_model, content = classifier[0], classifier[which]
    size = measure_size(content)
    assert size.file_bytes == len(content)
    # a zip entry holds a deflate stream too, by the default strategy and without the 6 bytes of zlib's frame
    assert 0.9 * deflated(content) < size.download_bytes <= deflated(content) + 6
    assert size.weights == sum(int(np.prod(w.shape)) for w in keras_model.weights if len(w.shape) > 1)
    assert (size.stored_weight_bits, size.weight_bits) == (bits, bits)
    assert size.activation_bytes == (8 * 8 + 3 * 3 * 6) * bits // 8  # the image, and what the convolution makes of it


def test_grid_bits_count_levels_not_storage(classifier):
    def coarse(tensor, buffer):  # noqa: ARG001
        buffer.data = (buffer.data.view(np.int8) // 16).astype(np.int8).view(np.uint8)  # -8..7

    size = measure_size(repacked(classifier[3], coarse))
    assert (size.stored_weight_bits, size.weight_bits) == (8, 4)
    assert size.download_bytes < measure_size(classifier[3]).download_bytes


def test_a_codebook_counts_its_integers():
    codes = np.tile(np.array([-11, -4, 0, 3, 9], np.int8), 40)
    assert grid_bits(codes.view(np.uint8), schema.TensorType.INT8) == 3
    assert grid_bits(codes[:20].view(np.uint8), schema.TensorType.INT8) == 5  # too few to tell


def test_packed_weights_count_four_bits_and_run(classifier):
    def pack(tensor, buffer):
        nibbles = np.clip(buffer.data.view(np.int8) // 16, -8, 7).astype(np.uint8) & 15
        tensor.type = schema.TensorType.INT4
        buffer.data = nibbles[::2] | nibbles[1::2] << 4

    content = repacked(classifier[3], pack)
    size = measure_size(content)
    assert (size.stored_weight_bits, size.weight_bits) == (4, 4)
    model = TfliteModel(content)
    (kernel,) = [info for info in model.all_tensors if len(info.shape) == 2 and len(info.scale) and info.shape[0] == 4]
    raw = model.constant(kernel.index)
    assert raw.shape == kernel.shape
    assert -8 <= raw.min() < 0 < raw.max() <= 7


def test_model_without_weights(three_at_a_time):
    size = measure_size(three_at_a_time)
    assert size.file_bytes == len(three_at_a_time)
    assert size.weights <= 3  # the constant that is added


def test_scalar_constants_are_no_weights(batch_traps):
    def scalar(tensor, buffer):  # noqa: ARG001
        raise AssertionError("no int8 constants here")

    content = repacked(batch_traps["mixes samples"], scalar)
    assert measure_size(content).weights == 0


def test_broken_file():
    with pytest.raises(UserError, match="TFL3"):
        measure_size(b"nothing")
