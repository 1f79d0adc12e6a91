"""Float .tflite files as models: every operator against the interpreter, whole networks, and what is refused."""

from __future__ import annotations

import io
import pathlib
import zipfile

import flatbuffers
import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from ai_edge_litert import schema_py_generated as schema

import tfq
from tfq.errors import UserError
from tfq.execution.tflite import parse_tflite
from tfq.models.equality import relative_error, run_graph
from tfq.models.load import load_model
from tfq.models.model_files import check_model_file
from tfq.models.prepare import prepare
from tfq.models.reshapes import RESHAPES
from tfq.models.tflite_files import operator_name
from tfq.models.tflite_frontend import RULES
from tfq.models.tflite_rules.carried import OTHERS
from tfq.targets.cpu import CPU

DEMO = pathlib.Path(__file__).resolve().parents[2] / "demo"
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
    "at_least_nothing": lambda x: 2.0 * tf.maximum(x, -np.inf),
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
    "largest_along": lambda x: tf.reduce_max(x, [2]) + tf.reduce_max(x, [3], keepdims=True)[:, :, 0],
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
    "broadcast_constant": lambda a, b: tf.reduce_mean(a, [1, 3], keepdims=True) * weights(6, 1, 4) + 0.0 * b,
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
    "reverse": lambda x: tf.reverse(x, [2]),
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
    "transposed_even": lambda x: k.conv2d_transpose(x, weights(4, 4, 5, 4), [1, 12, 16, 5], 2, "SAME"),
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


CARRIED = {
    "where": lambda x: tf.where(x > 0.5, x, 2.0 * x[:, :, :, :1]),
    "both": lambda x: tf.where((x > -1.0) & (x <= 1.0) | tf.logical_not(x >= -1.5), x, tf.zeros_like(x)),
    "equal": lambda x: tf.cast(tf.equal(tf.argmax(x, -1), tf.argmin(x, -1) + 1), tf.float32),
    "remainder": lambda x: tf.math.floormod(x, 0.7) + tf.math.floordiv(x, 0.7) + tf.round(x),
    "angle": lambda x: tf.math.atan2(x, x + 3.0),
    "sums": lambda x: tf.cumsum(x, axis=1, exclusive=True),
    "top": lambda x: tf.math.top_k(x, 2).values + tf.cast(tf.math.top_k(x, 2).indices, tf.float32),
    "one_hot": lambda x: tf.one_hot(tf.argmax(x, -1), 4),
    "least": lambda x: tf.reduce_min(x, [1, 2]) * tf.reduce_prod(x, [3], keepdims=True)[:, 0, 0],
    "any": lambda x: tf.cast(tf.reduce_any(x > 1.9, [1, 2]), tf.float32),
    "largest": lambda x: tf.reduce_max(x, [1, 3]),
    "power": lambda x: tf.pow(tf.abs(x), 1.7),
    "matrices": lambda x: tf.matmul(x, weights(6, 4, 3)),
    "between": lambda x: tf.concat([x, weights(1, 6, 2, 4), x], 2),
    "mirrored": lambda x: tf.pad(tf.tile(x, [1, 1, 9, 1]), [[0, 0], [0, 0], [40, 40], [0, 0]], "REFLECT"),
    "places": lambda x: tf.gather_nd(x[0], [[[5, 0], [0, 7]], [[2, 2], [2, 3]]]),
    "response": lambda x: k.local_response_normalization(x, 2, 1.0, 0.1, 0.5),
}


@pytest.mark.parametrize(
    ("functions", "shapes"),
    [
        (ELEMENTWISE, [IMAGE]),
        (CARRIED, [IMAGE]),
        (REDUCED, [IMAGE]),
        (BINARY, [IMAGE, IMAGE]),
        (SHAPES, [IMAGE]),
        (WEIGHTED, [IMAGE]),
        (MATRICES, [(1, 5, 6), (1, 6, 7)]),
    ],
    ids=["elementwise", "carried", "reduced", "binary", "shapes", "weighted", "matrices"],
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
    return packed(model)


def packed(model):
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
    "CONV_2D": (  # litert-torch writes a bias with the axes of an image
        [IMAGE, floats(5, 1, 1, 4), floats(1, 1, 1, 5)],
        (1, 6, 8, 5),
        ("Conv2D", {"strideW": 1, "strideH": 1, "dilationHFactor": 1, "dilationWFactor": 1}),
    ),
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
    assert set(OTHERS) - COVERED == {"REDUCE_ALL"}


def small(library):
    """A net of every usual layer, without a batch normalisation; and one such as the file holds it."""
    layers = library.layers
    library.utils.set_random_seed(5)
    image = library.Input((8, 8, 3), name="image")
    x = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu", name="stem")(image)
    gate = layers.Dense(8, activation="sigmoid", name="gate")(layers.GlobalAveragePooling2D()(x))
    y = layers.DepthwiseConv2D(3, padding="same", activation="relu", name="depthwise")(x)
    y = layers.Multiply(name="gated")([y, layers.Reshape((1, 1, 8))(gate)])
    y = layers.Add(name="sum")([x, layers.Conv2D(8, 1, name="project")(y)])
    model = library.Model(image, layers.Dense(4, name="classes")(layers.Flatten()(layers.MaxPooling2D()(y))))
    rng = np.random.default_rng(5)  # biases of zero the converter would drop
    model.set_weights(
        [w if w.ndim > 1 else rng.normal(0, 0.1, w.shape).astype(np.float32) for w in model.get_weights()]
    )
    return model


def integers_of(content):
    """The quantised constants of a file, whatever they are called."""
    model = parse_tflite(content)
    found = []
    for tensor in model.subgraphs[0].tensors:
        held, grid = model.buffers[tensor.buffer].data, tensor.quantization
        if held is not None and grid is not None and grid.scale is not None:
            found.append((tuple(map(int, tensor.shape)), np.frombuffer(bytes(held), TYPES[tensor.type])))
    return sorted(found, key=lambda pair: (pair[0], pair[1].tolist()))


TYPES = {schema.TensorType.INT8: np.int8, schema.TensorType.INT32: np.int32}


def float_file(tmp_path, model, **options):
    """The converter's float .tflite of a Keras model."""
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    for name, value in options.items():
        setattr(converter, name, value)
    path = tmp_path / "net.tflite"
    path.write_bytes(converter.convert())
    return path


def test_the_same_network_is_the_same_graph(tmp_path):
    """Prepared, of a Keras model and of the file that the converter makes of it; so the integers are the same."""
    model = small(tf_keras)
    images = np.random.default_rng(6).uniform(0, 1, (4, 8, 8, 3)).astype(np.float32)
    first, second = (
        prepare(found.graph, {found.graph.inputs[0]: images}, original=found, target=CPU).graph
        for found in map(load_model, (model, float_file(tmp_path, model)))
    )

    def parts(graph):
        return sorted(
            (node.kind, str(node.activation), *((name, w.tobytes()) for name, w in sorted(node.weights.items())))
            for node in graph.nodes
            if node.kind not in RESHAPES
        )

    assert parts(first) == parts(second)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "different"), [("small", 0.0), ("demo", 1e-3)])
def test_the_same_network_gives_the_same_integers(tmp_path, name, different):
    """But for batch normalisations, which the converter folds in other roundings."""
    model = small(tf_keras) if name == "small" else keras.models.load_model(DEMO / "digits.keras")
    images = np.random.default_rng(6).uniform(0, 16, (64, 8, 8, 3)).astype(np.float32)
    images = images if name == "small" else np.load(DEMO / "calibration.npz")["x"][:64]
    results = [tfq.quantize(source, images) for source in (model, float_file(tmp_path, model))]
    first, second = (integers_of(result.tflite) for result in results)
    assert [shape for shape, _ in first] == [shape for shape, _ in second]
    weights = [(a, b) for (_, a), (_, b) in zip(first, second, strict=True) if a.dtype == np.int8]
    assert weights
    assert all(np.abs(a.astype(int) - b).max() <= 1 and np.mean(a != b) <= different for a, b in weights)
    assert results[1].report.model["framework"] == "tflite"


@pytest.mark.slow
def test_a_note_says_how_large_a_file_of_float16_is(tmp_path):
    """Its weights are most of it, so that its float32 form is larger."""
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(128), keras.layers.Dense(4)])
    wanted = tf.lite.TFLiteConverter.from_keras_model(model).target_spec
    wanted.supported_types = [tf.float16]
    path = float_file(tmp_path, model, target_spec=wanted, optimizations=[tf.lite.Optimize.DEFAULT])
    notes = tfq.quantize(path, np.random.default_rng(8).normal(size=(40, 64)).astype(np.float32)).report.warnings
    assert any(f"the model's own file has {path.stat().st_size:,} bytes" in note for note in notes)


@pytest.mark.parametrize("options", [{}, {"optimizations": [tf.lite.Optimize.DEFAULT]}], ids=["float32", "float16"])
def test_any_number_of_samples_goes_through_a_file(tmp_path, options):
    """Its batch axis may be resized; weights stored as float16 are unpacked."""
    model, converter = small(keras), tf.lite.TFLiteConverter.from_keras_model(small(keras))
    converter.target_spec.supported_types = [tf.float16]
    found = load_model(float_file(tmp_path, model, target_spec=converter.target_spec, **options))
    images = np.random.default_rng(7).uniform(0, 1, (5, 8, 8, 3)).astype(np.float32)
    given = {found.graph.inputs[0]: images}
    assert relative_error(list(found.predict(given)), run_graph(found.graph, given)) < 2e-6
    assert relative_error([model.predict(images, verbose=0)], list(found.predict(given))) < (2e-3 if options else 2e-6)


@pytest.mark.parametrize("library", [keras, tf_keras])
def test_layer_normalisations_are_one_layer(tmp_path, library):
    """Its parts lie in the file in the order of either library; what reads a part elsewhere keeps it."""
    layers = library.layers
    x = library.Input((6, 8), name="x")
    inner = layers.LayerNormalization(epsilon=1e-3, name="norm")
    model = library.Model(x, layers.Add()([x, layers.Dense(8)(inner(x))]))
    gamma, beta = (np.random.default_rng(s).uniform(0.5, 1.5, 8).astype(np.float32) for s in (1, 2))
    inner.set_weights([gamma, beta])
    found = check(tmp_path, float_file(tmp_path, model).read_bytes())
    (norm,) = (node for node in found.graph.nodes if node.kind == "LayerNormalization")
    np.testing.assert_allclose(norm.weights["gamma"], gamma, rtol=1e-4)
    np.testing.assert_allclose(norm.weights["beta"], beta, rtol=1e-4)
    assert norm.config["epsilon"] == pytest.approx(1e-3)
    assert sorted(node.kind for node in found.graph.nodes if node.kind != "Reshape") == [
        "Add", "Dense", "Input", "LayerNormalization"
    ]  # fmt: skip


def test_a_layer_normalisation_has_its_gain_where_a_dense_layer_took_it(tmp_path):
    """The converter folds it into the dense layer behind, and computes it for what else reads it."""
    norm = tf_keras.layers.LayerNormalization()
    x = tf_keras.Input((6, 8), name="x")
    y = norm(x)
    model = tf_keras.Model(x, y + tf_keras.layers.Dense(8, "relu")(y))
    norm.set_weights([np.random.default_rng(s).uniform(0.5, 1.5, 8).astype(np.float32) for s in (1, 2)])
    nodes = check(tmp_path, float_file(tmp_path, model).read_bytes()).graph.nodes
    assert not [node.name for node in nodes if node.kind == "Affine"]


def test_a_layer_that_is_called_twice_is_one_group(tmp_path):
    """Its weights are in the file once; the constant of two sums, in the file once too, makes no layer of them."""
    x = keras.Input((6, 6, 3), name="x")
    conv = keras.layers.Conv2D(3, 3, padding="same", name="conv")
    model = keras.Model(x, keras.ops.tanh(conv(keras.ops.tanh(conv(x)) + 0.25)) + 0.25)
    nodes = check(tmp_path, float_file(tmp_path, model).read_bytes()).graph.nodes
    convolutions = [node for node in nodes if node.kind == "Conv2D"]
    assert len(convolutions) == 2
    assert len({node.group for node in convolutions}) == 1
    assert len({node.group for node in nodes if node.kind == "Affine"}) == 2


def test_layers_are_called_as_in_pytorch(tmp_path):
    """litert-torch writes the classes too, and numbers behind a ";"."""
    model = parse_tflite(built("RELU_0_TO_1", [IMAGE], IMAGE))
    model.subgraphs[0].tensors[1].name = b"app.Net/torch.nn.modules.container.Sequential_body/torch.nn.ReLU_0;12"
    (_, node) = loaded(tmp_path, packed(model)).graph.nodes
    assert node.origin == ("Net/body/0",)


def refused(tmp_path, content, *words):
    with pytest.raises(UserError) as caught:
        loaded(tmp_path, content)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_an_operator_without_a_rule_is_refused_by_name(tmp_path):
    refused(tmp_path, converted({"matrix": tf.linalg.diag}, IMAGE), "MATRIX_DIAG", "no rule")


def test_quantised_files_are_refused(tmp_path, classifier):
    refused(tmp_path, classifier[3], "is quantised already", "INT8", "give the float .tflite")
    large = tf_keras.Sequential([tf_keras.Input((64,)), tf_keras.layers.Dense(64)])
    path = float_file(tmp_path, large, optimizations=[tf.lite.Optimize.DEFAULT])
    refused(tmp_path, path.read_bytes(), "is quantised already")  # the weights alone


def test_other_batches_than_of_one_sample_are_refused(tmp_path):
    refused(tmp_path, converted({"twice": lambda x: 2.0 * x}, (3, 4)), "[3, 4]", "batch axis of size 1")


def test_damaged_files_are_refused_before_anything_runs_them(tmp_path, classifier):
    content = classifier[2]
    refused(tmp_path, content[: len(content) // 2], "net.tflite", "export or copy it again")
    refused(tmp_path, content[:4] + b"TFL9" + content[8:], "neither HDF5 nor")
    path = tmp_path / "net.tflite"
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="export or copy it again"):
        check_model_file(path)


def test_metadata_behind_a_file_does_not_make_it_a_zip_file(tmp_path, classifier):
    packed = io.BytesIO(classifier[2])
    with zipfile.ZipFile(packed, "a") as archive:
        archive.writestr("labels.txt", "one\ntwo")
    assert loaded(tmp_path, packed.getvalue()).framework == "tflite"


def test_a_mask_of_infinities_goes_from_one_carried_operator_to_others(tmp_path):
    """Through a reshape, without a grid; computed integers are cast to quantities."""
    table, rng = tf.constant(floats(9, 8)), np.random.default_rng(0)

    def attended(words):
        x, mask = tf.gather(table, words), tf.where(words == 0, -np.inf, 0.0)
        return tf.matmul(k.softmax(tf.matmul(x, x, transpose_b=True) + tf.reshape(mask, (1, 1, 6))), x)

    path = tmp_path / "net.tflite"
    path.write_bytes(
        converted(
            {"y": attended, "place": lambda words: tf.cast(tf.argmax(attended(words), -1), tf.float32)},
            (1, 6),
            dtype=tf.int32,
        )
    )
    words = rng.integers(1, 9, (32, 6)) * (np.arange(6) < rng.integers(2, 7, (32, 1)))
    assert tfq.quantize(path, words.astype(np.int32)).report.verification


def test_integers_and_truth_values_have_no_grid(tmp_path):
    """Words are checked against the table by comparisons, and places of the largest are an output."""
    table, rng = tf.constant(floats(9, 4)), np.random.default_rng(0)

    def looked_up(x):
        rows = tf.gather(table, tf.where(x < 0, x + 9, x))
        return tf.math.top_k(tf.reduce_mean(rows, 1) * 3.0, 2).indices

    path = tmp_path / "net.tflite"
    path.write_bytes(converted({"places": looked_up}, (1, 6), dtype=tf.int32))
    result = tfq.quantize(path, rng.integers(0, 9, (32, 6)).astype(np.int32))
    assert result.report.verification


def test_truth_values_as_an_output_are_refused(tmp_path):
    path = tmp_path / "net.tflite"
    path.write_bytes(converted({"flags": lambda x: x > 0.5}, IMAGE))
    with pytest.raises(UserError, match="truth values; cast"):
        tfq.quantize(path, RNG.normal(size=(16, *IMAGE[1:])).astype(np.float32))
