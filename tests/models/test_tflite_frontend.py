"""Float .tflite files as models: every operator against the interpreter, whole networks, and what is refused."""

from __future__ import annotations

import flatbuffers
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema

from tfq.execution.tflite import parse_tflite
from tfq.models.equality import relative_error, run_graph
from tfq.models.load import load_model
from tfq.models.tflite_files import operator_name
from tfq.models.tflite_frontend import RULES

RNG = np.random.default_rng(0)
COVERED: set[str] = set()


def weights(*shape):
    return tf.constant(RNG.normal(0, 0.5, shape).astype(np.float32))


def converted(functions, *shapes, dtype=tf.float32):
    """The .tflite of functions by the name of their output, all of the same inputs."""
    module = tf.Module()
    signature = [tf.TensorSpec(shape, dtype, name=f"x{i}") for i, shape in enumerate(shapes)]
    function = tf.function(lambda *x: {name: f(*x) for name, f in functions.items()}, input_signature=signature)
    module.f = function
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()], module)
    return converter.convert()


def kinds(content):
    return {operator_name(code) for code in parse_tflite(content).operatorCodes}


def loaded(tmp_path, content):
    path = tmp_path / "net.tflite"
    path.write_bytes(content)
    return load_model(path)


def samples(model, count=3, low=-2.0):
    def draw(config):
        shape = (count, *config["shape"])
        if config["dtype"] == "float32":
            return RNG.uniform(low, 2, shape).astype(np.float32)
        return RNG.integers(0, 5, shape).astype(config["dtype"])

    return {name: draw(model.graph[name].config) for name in model.graph.inputs}


def check(tmp_path, content, low=-2.0):
    """The graph computes what the file does, output by output; its kinds count as covered."""
    model = loaded(tmp_path, content)
    arrays = samples(model, low=low)
    pairs = zip(model.graph.output_names, model.predict(arrays), run_graph(model.graph, arrays), strict=True)
    errors = {name: relative_error([a], [b]) for name, a, b in pairs}
    assert not {name: error for name, error in errors.items() if not error <= 2e-6}
    COVERED.update(kinds(content))
    return model


IMAGE = (1, 6, 8, 4)
k = tf.nn
ELEMENTWISE = {
    "relu": k.relu,
    "relu6": k.relu6,
    "leaky": lambda x: k.leaky_relu(x, 0.1),
    "elu": k.elu,
    "gelu_tanh": lambda x: k.gelu(x, approximate=True),
    "hard_swish": lambda x: x * k.relu6(x + np.float32(3)) * np.float32(1 / 6),
    "sigmoid": tf.sigmoid,
    "tanh": tf.tanh,
    "clip": lambda x: tf.clip_by_value(x, -1.0, 1.0),
    "clip01": lambda x: tf.minimum(tf.maximum(x, 0.0), 1.0),
    "softmax": k.softmax,
    "log_softmax": k.log_softmax,
    "l2": lambda x: tf.math.l2_normalize(x, -1, epsilon=0.0),
    "abs": tf.abs,
    "exp": tf.exp,
    "sin": tf.sin,
    "cos": tf.cos,
    "floor": tf.floor,
    "ceil": tf.math.ceil,
    "sign": tf.sign,
    "neg": tf.negative,
    "square": tf.square,
    "log": lambda x: tf.math.log(tf.abs(x) + 1.0),
    "sqrt": lambda x: tf.sqrt(tf.abs(x) + 1.0),
    "rsqrt": lambda x: tf.math.rsqrt(tf.abs(x) + 1.0),
    "power": lambda x: tf.pow(tf.abs(x) + 1.0, 0.5),
    "add_number": lambda x: x + 2.0,
    "number_minus": lambda x: 2.0 - x,
    "times_channels": lambda x: x * weights(4),
    "times_places": lambda x: x * weights(6, 8, 4),
    "divided": lambda x: x / 3.0,
    "inverse": lambda x: 3.0 / (tf.abs(x) + 1.0),
    "at_least": lambda x: tf.maximum(x, 0.25),
    "at_most": lambda x: tf.minimum(x, 0.25),
    "prelu": lambda x: k.relu(x) - weights(4) * k.relu(-x),
    "fused": lambda x: k.relu6(x + tf.ones((1, 6, 8, 4))),
}
REDUCED = {
    "gelu": k.gelu,
    "global": lambda x: tf.reduce_mean(x, [1, 2]),
    "global_kept": lambda x: tf.reduce_mean(x, [1, 2], keepdims=True),
    "number": lambda x: tf.reduce_mean(x, [1, 2, 3]) * 2.0 + 1.0,
    "last": lambda x: tf.reduce_mean(x, -1, keepdims=True),
    "sum": lambda x: tf.reduce_sum(x, [1]),
    "largest": lambda x: tf.reduce_max(x, [1, 2]),
}
BINARY = {
    "add": tf.add,
    "sub": tf.subtract,
    "mul": tf.multiply,
    "div": lambda a, b: a / (tf.abs(b) + 1.0),
    "max": tf.maximum,
    "min": tf.minimum,
    "squared_difference": tf.math.squared_difference,
    "many": lambda a, b: tf.add_n([a, b, a]),
    "broadcast": lambda a, b: a * tf.reduce_mean(b, [1, 2], keepdims=True),
    "broadcast_rank": lambda a, b: a + tf.reshape(tf.reduce_mean(b, [1, 2]), [4]),
}
SHAPES = {
    "reshape": lambda x: tf.reshape(x, [1, 48, 4]),
    "rows": lambda x: tf.reshape(tf.reshape(x, [48, 4]) @ weights(4, 3), [1, 6, 8, 3]),
    "transpose": lambda x: tf.transpose(x, [0, 3, 1, 2]),
    "front": lambda x: tf.transpose(tf.transpose(x[:, 0], [1, 0, 2]) * weights(4), [1, 0, 2]),
    "squeeze": lambda x: tf.squeeze(tf.reduce_mean(x, [1], keepdims=True), [1]),
    "expand": lambda x: tf.expand_dims(x, 2),
    "concat": lambda x: tf.concat([x, x * 2.0], 1),
    "concat_token": lambda x: tf.concat([weights(1, 1, 8, 4), x, x], 1),
    "pack": lambda x: tf.stack([x, x * 2.0], 1),
    "unpack": lambda x: tf.add(*tf.unstack(x[:, :2], axis=1)),
    "slice": lambda x: tf.slice(x, [0, 1, 2, 0], [1, 3, -1, 2]),
    "strided": lambda x: x[:, 1:5:2, ::-1, 1],
    "from_the_end": lambda x: x[:, -3:, :-1],
    "split": lambda x: tf.multiply(*tf.split(x, 2, axis=-1)),
    "split_v": lambda x: tf.concat(tf.split(x, [1, 3], axis=-1)[::-1], -1),
    "pad": lambda x: tf.pad(x, [[0, 0], [1, 2], [0, 3], [0, 0]]),
    "pad_channels": lambda x: tf.pad(x, [[0, 0], [0, 0], [0, 0], [1, 2]]),
    "pad_number": lambda x: tf.pad(x, [[0, 0], [1, 2], [0, 3], [0, 0]], constant_values=1.5),
    "pad_largest": lambda x: k.max_pool2d(
        tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]], constant_values=-np.inf), 3, 2, "VALID"
    ),
    "reflect": lambda x: tf.pad(x, [[0, 0], [2, 1], [0, 3], [0, 0]], "REFLECT"),
    "symmetric": lambda x: tf.pad(x, [[0, 0], [2, 1], [0, 3], [0, 0]], "SYMMETRIC"),
    "tile": lambda x: tf.tile(x, [1, 2, 1, 3]),
    "gather": lambda x: tf.gather(x, [3, 0, 1], axis=3),
    "gather_one": lambda x: tf.gather(x, 2, axis=1),
    "max_pool": lambda x: k.max_pool2d(x, [3, 2], [2, 1], "SAME"),
    "average_pool": lambda x: k.avg_pool2d(x, 3, 2, "SAME"),
    "whole_pool": lambda x: k.avg_pool2d(x, [6, 8], 1, "VALID"),
    "bilinear": lambda x: tf.image.resize(x, [9, 12]),
    "bilinear_corners": lambda x: tf.compat.v1.image.resize_bilinear(x, [9, 12], align_corners=True),
    "bilinear_edges": lambda x: tf.compat.v1.image.resize_bilinear(x, [9, 12]),
    "nearest": lambda x: tf.image.resize(x, [9, 12], "nearest"),
    "nearest_corners": lambda x: tf.compat.v1.image.resize_nearest_neighbor(x, [9, 13], align_corners=True),
    "nearest_edges": lambda x: tf.compat.v1.image.resize_nearest_neighbor(x, [9, 13]),
    "twice": lambda x: tf.compat.v1.image.resize_nearest_neighbor(x, [12, 16]),
    "depth_to_space": lambda x: k.depth_to_space(x, 2),
    "space_to_depth": lambda x: k.space_to_depth(x, 2),
}
WEIGHTED = {
    "conv": lambda x: k.conv2d(x, weights(3, 3, 4, 5), [1, 2], "SAME") + weights(5),
    "conv_valid": lambda x: k.relu(k.conv2d(x, weights(3, 2, 4, 5), 1, "VALID")),
    "dilated": lambda x: k.conv2d(x, weights(3, 3, 4, 5), 1, "SAME", dilations=2),
    "blocks": lambda x: tf.batch_to_space(
        k.relu(k.conv2d(tf.space_to_batch(x, [2, 2], [[2, 2], [2, 2]]), weights(3, 3, 4, 5), 1, "VALID")),
        [2, 2],
        [[0, 1], [1, 0]],
    ),
    "grouped": lambda x: k.conv2d(x, weights(3, 3, 2, 6), 1, "SAME"),
    "depthwise": lambda x: k.depthwise_conv2d(x, weights(3, 3, 4, 1), [1, 2, 2, 1], "SAME") + weights(4),
    "depthwise_twice": lambda x: k.relu6(k.depthwise_conv2d(x, weights(3, 3, 4, 2), [1, 1, 1, 1], "VALID")),
    "transposed": lambda x: k.conv2d_transpose(x, weights(3, 3, 5, 4), [1, 12, 16, 5], 2, "SAME"),
    "transposed_valid": lambda x: k.conv2d_transpose(x, weights(3, 3, 5, 4), [1, 14, 18, 5], 2, "VALID"),
    "dense": lambda x: tf.reshape(x, [1, 192]) @ weights(192, 5) + weights(5),
    "dense_rows": lambda x: k.relu(tf.tensordot(x, weights(4, 7), 1) + weights(7)),
}
MATRICES = {
    "product": lambda a, b: a @ b,
    "turned": lambda a, b: tf.matmul(tf.transpose(b, [0, 2, 1]), a, transpose_b=True),
    "attention": lambda a, b: k.softmax(tf.matmul(a, b)) @ tf.transpose(b, [0, 2, 1]),
    "constant_left": lambda a, b: weights(1, 3, 5) @ a + 0.0 * b[:, :1, :1],
    "constant_right": lambda a, b: a @ weights(1, 6, 4) + 0.0 * b[:, :1, :1],
    "no_batch": lambda a, b: tf.reshape(a, [5, 6]) @ tf.reshape(b, [6, 7]),
}


@pytest.mark.parametrize(
    ("functions", "shapes"),
    [
        (ELEMENTWISE, [IMAGE]),
        (REDUCED, [IMAGE]),
        (BINARY, [IMAGE, IMAGE]),
        (SHAPES, [IMAGE]),
        (WEIGHTED, [IMAGE]),
        (MATRICES, [(1, 5, 6), (1, 6, 7)]),
    ],
    ids=["elementwise", "reduced", "binary", "shapes", "weighted", "matrices"],
)
def test_operators(tmp_path, functions, shapes):
    check(tmp_path, converted(functions, *shapes))


def built(kind, inputs, output, options=("", {}), dtype="float32", version=1):
    """The .tflite of one operator. Inputs: the shape of the model's input, or a constant array."""
    model, graph, operator, code = schema.ModelT(), schema.SubGraphT(), schema.OperatorT(), schema.OperatorCodeT()
    code.builtinCode = getattr(schema.BuiltinOperator, kind)
    code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), version
    model.version, model.operatorCodes, model.buffers, graph.tensors = 3, [code], [schema.BufferT()], []
    for place, given in enumerate((*inputs, output)):
        tensor, constant = schema.TensorT(), isinstance(given, np.ndarray)
        tensor.name, tensor.shape = f"t{place}".encode(), list(given.shape if constant else given)
        tensor.type = getattr(schema.TensorType, (given.dtype.name if constant else dtype).upper())
        if place == len(inputs):
            tensor.type = schema.TensorType.FLOAT32
        if constant:
            model.buffers.append(schema.BufferT())
            model.buffers[-1].data = np.frombuffer(given.tobytes(), np.uint8)
            tensor.buffer = len(model.buffers) - 1
        graph.tensors.append(tensor)
    operator.inputs, operator.outputs = list(range(len(inputs))), [len(inputs)]
    graph.inputs = [place for place, given in enumerate(inputs) if isinstance(given, tuple)]
    graph.outputs, graph.operators, model.subgraphs = operator.outputs, [operator], [graph]
    name, fields = options
    if name:
        operator.builtinOptions = getattr(schema, f"{name}OptionsT")()
        operator.builtinOptionsType = getattr(schema.BuiltinOptions, f"{name}Options")
        vars(operator.builtinOptions).update(fields)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def index(*values):
    return np.array(values, np.int32)


def floats(*shape):
    return RNG.normal(0, 0.5, shape).astype(np.float32)


RARE = {
    "RELU_0_TO_1": ([IMAGE], IMAGE),
    "EXPAND_DIMS": ([IMAGE, np.array(-2, np.int32)], (1, 6, 8, 1, 4)),
    "SQUEEZE": ([(1, 6, 1, 4)], (1, 6, 4), ("Squeeze", {"squeezeDims": [2]})),
    "L2_NORMALIZATION": ([IMAGE], IMAGE, ("L2Norm", {})),
    "BROADCAST_TO": ([(1, 1, 8, 4), index(*IMAGE)], IMAGE, ("BroadcastTo", {}), "float32", 2),
    "POW": ([IMAGE, np.array(2, np.float32)], IMAGE, ("Pow", {})),
    "PRELU": ([IMAGE, floats(1, 1, 4)], IMAGE),
    "ADD_N": ([IMAGE, IMAGE], IMAGE),
    "TRANSPOSE_CONV": (
        [index(1, 11, 16, 5), floats(5, 3, 3, 4), IMAGE, floats(5)],
        (1, 11, 16, 5),
        ("TransposeConv", {"strideW": 2, "strideH": 2, "padding": 0}),
    ),
}


@pytest.mark.parametrize("kind", RARE)
def test_operators_that_the_converter_seldom_writes(tmp_path, kind):
    check(tmp_path, built(kind, *RARE[kind]))


def test_tables_are_looked_up(tmp_path):
    table = floats(5, 3)
    check(tmp_path, built("EMBEDDING_LOOKUP", [(1,), table], (1, 3), dtype="int32"))
    words = {"words": lambda x: tf.gather(tf.constant(table), x), "numbers": lambda x: tf.cast(x, tf.float32) / 3.0}
    check(tmp_path, converted(words, (1, 4), dtype=tf.int32))
    check(tmp_path, converted({"cast": lambda x: tf.gather(tf.constant(table), tf.cast(x, tf.int32))}, (1, 4)), low=0)


def test_every_rule_is_covered():
    """By the tests above, which have run."""
    assert set(RULES) - COVERED == set()
