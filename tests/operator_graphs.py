"""Small prepared graphs that between them hold every operation tfq quantises, and how a test takes one down the road.

What the tests of simulation, export and verification share; `ALL` lists the graphs.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from tfq.calibration.calibrate import calibrate
from tfq.calibration.specify import specify
from tfq.data.calibration_set import CalibrationSet
from tfq.data.samples import Samples
from tfq.export.convert import convert_quantized
from tfq.export.package import export_quantized
from tfq.export.passes import finish
from tfq.models.graph import Graph, Node
from tfq.precision import INT8, Precision
from tfq.quantized_model import QuantizedModel

SAMPLES = 24


@dataclasses.dataclass(frozen=True)
class Case:
    """A float graph, samples by input name [n, ...], the quantised model of it and the finished .tflite."""

    graph: Graph
    samples: Mapping[str, np.ndarray]
    model: QuantizedModel
    content: bytes


class _Builder:
    """Makes nodes with random weights that keep the signal's size."""

    def __init__(self, seed: int):
        self._rng = np.random.default_rng(seed)
        self._nodes: list[Node] = []

    def normal(self, *shape: int, fan_in: int = 1) -> np.ndarray:
        return (self._rng.normal(size=shape) / np.sqrt(fan_in)).astype(np.float32)

    def input(self, name: str, shape: tuple[int, ...], dtype: str = "float32", **config: bool) -> str:
        self._nodes.append(Node(name, "Input", {"shape": shape, "dtype": dtype, **config}))
        return name

    def node(
        self,
        name: str,
        kind: str,
        inputs: str | tuple[str, ...],
        weights: Mapping[str, np.ndarray] | None = None,
        *,
        activation: str | None = None,
        group: str = "",
        **config: Any,
    ) -> str:
        inputs = (inputs,) if isinstance(inputs, str) else inputs
        origin = (f"keras_{name}",)
        self._nodes.append(Node(name, kind, config, inputs, weights or {}, activation, origin=origin, group=group))
        return name

    def conv(
        self, name: str, source: str, channels: int, filters: int, size: int = 1, *, bias: bool = True, **options: Any
    ) -> str:
        weights = {"kernel": self.normal(size, size, channels, filters, fan_in=size * size * channels)}
        weights |= {"bias": 0.3 * self.normal(filters)} if bias else {}
        return self.node(
            name, "Conv2D", source, weights, filters=filters, kernel_size=size, use_bias=bias, padding="same", **options
        )

    def depthwise(self, name: str, source: str, channels: int, multiplier: int = 1, **options: Any) -> str:
        weights = {
            "depthwise_kernel": self.normal(3, 3, channels, multiplier, fan_in=9),
            "bias": 0.3 * self.normal(channels * multiplier),
        }
        return self.node(
            name, "DepthwiseConv2D", source, weights, kernel_size=3, depth_multiplier=multiplier, **options
        )

    def dense(self, name: str, source: str, inputs: int, units: int, *, bias: bool = True, **options: Any) -> str:
        weights = {"kernel": self.normal(inputs, units, fan_in=inputs)}
        weights |= {"bias": 0.3 * self.normal(units)} if bias else {}
        return self.node(name, "Dense", source, weights, units=units, use_bias=bias, **options)

    def graph(self, outputs: tuple[str, ...], output_names: tuple[str, ...] = ()) -> Graph:
        inputs = tuple(n.name for n in self._nodes if n.kind == "Input")
        return Graph(tuple(self._nodes), inputs, outputs, output_names)


def convolutions() -> Graph:
    """Every kind of weight: depth multiplier 2, no bias, a bias of zeros, transposed, PReLU; a classifier's head."""
    make = _Builder(0)
    make.input("image", (12, 12, 3))
    make.conv("stem", "image", 3, 8, 3, strides=2, activation="relu6")
    make.depthwise("depthwise", "stem", 8, padding="same", activation="relu6")
    make.depthwise("doubled", "depthwise", 8, 2)
    make.conv("no_bias", "doubled", 16, 8, bias=False)
    zeros = {"kernel": make.normal(1, 1, 8, 8, fan_in=8), "bias": np.zeros(8, np.float32)}
    make.node("zero_bias", "Conv2D", "no_bias", zeros, filters=8, kernel_size=1, activation="relu")
    make.node("add", "Add", ("no_bias", "zero_bias"), activation="relu")
    make.node("leaky", "LeakyReLU", "add", alpha=0.1)
    weights = {"kernel": make.normal(3, 3, 6, 8, fan_in=18), "bias": 0.3 * make.normal(6)}
    make.node("transposed", "Conv2DTranspose", "leaky", weights, filters=6, kernel_size=3, strides=2, padding="same")
    slopes = {"alpha": np.abs(0.3 * make.normal(1, 1, 6))}
    make.node("prelu", "PReLU", "transposed", slopes, shared_axes=[1, 2])
    make.node("pool", "MaxPooling2D", "prelu", pool_size=2)
    make.node("squeeze", "GlobalAveragePooling2D", "pool", keepdims=True)
    make.node("flat", "Flatten", "squeeze")
    make.dense("hidden", "flat", 6, 12, activation="relu")
    make.dense("logits", "hidden", 12, 10, bias=False)
    make.node("probabilities", "Softmax", "logits")
    return make.graph(("probabilities",))


def arithmetic() -> Graph:
    """Two inputs and three outputs, none in alphabetical order; arithmetic, activations, data movement, pooling."""
    make = _Builder(1)
    make.input("zebra", (8, 8, 4))
    make.input("apple", (8, 8, 4))
    make.node("difference", "Subtract", ("zebra", "apple"))
    make.node("product", "Multiply", ("difference", "apple"), activation="relu")
    make.node("larger", "Maximum", ("product", "zebra"))
    make.node("smaller", "Minimum", ("larger", "apple"))
    make.node("moved", "AddConstant", "smaller", activation="relu6", constant=0.5)
    make.node("hard", "HardSwish", "moved")
    make.node("smooth", "Gelu", "hard")
    make.node("scaled", "MultiplyConstant", "smooth", constant=-1.5)
    make.node("gate", "Sigmoid", "smooth")
    make.node("squashed", "Tanh", "scaled")
    make.node("gate_copy", "Requantize", "gate")
    make.node("squashed_copy", "Requantize", "squashed")
    make.node("joined", "Concatenate", ("gate_copy", "squashed_copy"))
    make.node("padded", "ZeroPadding2D", "joined", padding=1)
    make.node("cropped", "Cropping2D", "padded", cropping=2)
    make.node("part", "Slice", "cropped", begin=[0, 1, 1], end=[None, None, 7], strides=[None, None, 2])
    make.node("enlarged", "UpSampling2D", "part", size=2)
    make.node("sized", "Resizing", "enlarged", height=6, width=6)
    make.node("averaged", "AveragePooling2D", "sized", pool_size=2)
    make.node("rectified", "ReLU", "averaged")
    make.node("turned", "Permute", "rectified", dims=(3, 1, 2))
    make.node("listed", "Reshape", "turned", target_shape=(3, 9))
    make.node("mean", "Mean", "listed", axes=(2,))
    make.node("peak", "GlobalMaxPooling2D", "averaged")
    make.dense("scores", "mean", 3, 5)
    return make.graph(("scores", "peak", "enlarged"), ("z_scores", "peak", "a_map"))


def transformer() -> Graph:
    """An encoder block over token numbers, as `prepare` makes one: 1x1 convolutions, MatMul, LayerNormalization."""
    make = _Builder(2)
    size = 16
    make.input("tokens", (12,), "int32")
    table = {"embeddings": make.normal(50, size)}
    make.node("embedding", "Embedding", "tokens", table, input_dim=50, output_dim=size)

    def normalized(name: str, source: str) -> str:
        weights = {"gamma": 1 + 0.2 * make.normal(size), "beta": 0.2 * make.normal(size)}
        make.node(name, "LayerNormalization", source, weights, axis=-1)
        make.node(f"{name}.grid", "Requantize", name)
        return make.node(f"{name}.image", "Reshape", f"{name}.grid", target_shape=(1, 12, size))

    source = normalized("norm1", "embedding")
    for role in ("query", "key", "value"):
        make.conv(role, source, size, size)
        make.node(f"{role}.heads", "Reshape", role, target_shape=(12, 2, size // 2))
        make.node(f"{role}.turned", "Permute", f"{role}.heads", dims=(2, 1, 3))
    make.node("scores", "MatMul", ("query.turned", "key.turned"), transpose_b=True)
    make.node("attention", "Softmax", "scores")
    make.node("context", "MatMul", ("attention", "value.turned"))
    make.node("context.turned", "Permute", "context", dims=(2, 1, 3))
    make.node("context.image", "Reshape", "context.turned", target_shape=(1, 12, size))
    make.conv("projection", "context.image", size, size)
    make.node("projection.rows", "Reshape", "projection", target_shape=(12, size))
    make.node("residual1", "Add", ("embedding", "projection.rows"))
    make.conv("expand", normalized("norm2", "residual1"), size, 32)
    make.node("gelu", "Gelu", "expand")
    make.conv("shrink", "gelu", 32, size)
    make.node("shrink.rows", "Reshape", "shrink", target_shape=(12, size))
    make.node("residual2", "Add", ("residual1", "shrink.rows"))
    make.node("mean", "Mean", "residual2", axes=(1,))
    make.dense("classes", "mean", size, 3)
    return make.graph(("classes",))


def lookups(inputs: int = 64) -> Graph:
    """Every layer that has kernels for integer weights among float activations."""
    make = _Builder(4)
    make.input("index", (6,), "int32")
    make.node("table", "Embedding", "index", {"embeddings": make.normal(50, inputs)}, input_dim=50, output_dim=inputs)
    make.dense("rows", "table", inputs, 8)
    make.node("image", "Reshape", "rows", target_shape=(2, 3, 8))
    make.conv("conv", "image", 8, 5, 3, activation="relu")
    make.node("flat", "Flatten", "conv")
    make.dense("last", "flat", 30, 7)
    return make.graph(("last",))


def chain() -> Graph:
    """Dense layers with nothing between them, and with a reshape."""
    make = _Builder(6)
    make.input("x", (4, 8))
    make.dense("first", "x", 8, 8)
    make.dense("second", "first", 8, 16)
    make.node("image", "Reshape", "second", target_shape=(2, 2, 16))
    make.dense("third", "image", 16, 4)
    return make.graph(("third",))


def image_layer(kind: str, channels: int = 6, size: int = 4) -> Graph:
    """A pointwise convolution and one with a window, or a depthwise one of size 1 with a bias."""
    make = _Builder(5)
    make.input("image", (size, size, channels))
    if kind == "DepthwiseConv2D":
        weights = {"depthwise_kernel": make.normal(1, 1, channels, 1), "bias": make.normal(channels)}
        make.node("last", kind, "image", weights, kernel_size=(1, 1))
    else:
        make.conv("point", "image", channels, 5)
        make.conv("last", "point", 5, 3, 3)
    return make.graph(("last",))


def islands() -> Graph:
    """Float operations in the middle, at an output and one behind the other."""
    make = _Builder(3)
    make.input("image", (6, 6, 4))
    make.conv("first", "image", 4, 6, 3)
    make.node("elu", "ELU", "first")
    make.node("elu.grid", "Requantize", "elu")
    make.conv("second", "elu.grid", 6, 6)
    make.node("positive", "Unary", "second", function="softplus")
    make.node("square", "Unary", "positive", function="square")
    make.node("ratio", "Divide", ("square", "positive"))
    make.node("ratio.grid", "Requantize", "ratio")
    make.node("sum", "Add", ("first", "ratio.grid"))
    make.node("smooth", "FloatGelu", "sum")
    make.node("smooth.grid", "Requantize", "smooth")
    factors = {"rows": (1.5, 1.0, 1.0, 1.0, 1.0, 1.5), "columns": (1.0, 1.0, 1.0, 1.0, 1.0, 2.0), "step": 1 / 84}
    make.node("places", "MultiplyPlaces", "smooth.grid", **factors)
    make.node("pooled", "GlobalAveragePooling2D", "places")
    make.dense("scores", "pooled", 6, 4)
    make.node("exponential", "Unary", "scores", function="exp")
    make.node("joined", "FloatConcatenate", ("pooled", "scores"))
    make.node("probabilities", "FloatSoftmax", "scores")
    make.node("chances", "FloatSigmoid", "scores")
    return make.graph(("exponential", "scores", "joined", "probabilities", "chances"))


def shared() -> Graph:
    """One convolution and one dense layer called twice each."""
    make = _Builder(4)
    make.input("right", (6, 6, 3))
    make.input("left", (6, 6, 3))
    conv = {"kernel": make.normal(3, 3, 3, 4, fan_in=27), "bias": 0.3 * make.normal(4)}
    dense = {"kernel": make.normal(4, 3, fan_in=4), "bias": 0.3 * make.normal(3)}
    for side in ("right", "left"):
        make.node(f"conv_{side}", "Conv2D", side, conv, group="conv", activation="relu", filters=4, kernel_size=3)
        make.node(f"pool_{side}", "GlobalAveragePooling2D", f"conv_{side}")
        make.node(f"dense_{side}", "Dense", f"pool_{side}", dense, group="dense", units=3)
    make.node("distance", "Subtract", ("dense_right", "dense_left"))
    return make.graph(("distance",))


def square() -> Graph:
    """Nothing that shapes could tell apart: kernels, images, operands, inputs and outputs of equal sizes."""
    make = _Builder(6)
    make.input("image", (6, 6, 3))
    make.input("other", (6, 6, 3))
    make.conv("conv", "image", 3, 3, 3)
    large = {"kernel": 4 * make.normal(3, 3, 3, 3, fan_in=27), "bias": 0.3 * make.normal(3)}  # values far above 6
    config = {"filters": 3, "kernel_size": 3, "padding": "same", "dilation_rate": 2}
    make.node("dilated", "Conv2D", "other", large, activation="relu", **config)
    make.conv("strided", "image", 3, 6, 3, strides=2, activation="relu6")
    make.depthwise("depthwise", "conv", 3, 3, padding="same")
    make.depthwise("valid", "dilated", 3, 2)
    make.conv("back", "depthwise", 9, 3)
    weights = {"kernel": make.normal(3, 3, 3, 3, fan_in=27), "bias": 0.3 * make.normal(3)}
    make.node("transposed", "Conv2DTranspose", "back", weights, filters=3, kernel_size=3, padding="same")
    make.node("joined", "Concatenate", ("transposed", "dilated"))
    make.node("turned", "Permute", "joined", dims=(3, 1, 2))
    make.node("difference", "Subtract", ("joined", "turned"), activation="relu")
    make.conv("left", "difference", 6, 6)
    make.conv("right", "turned", 6, 6, bias=False)
    make.node("product", "MatMul", ("left", "right"))
    make.node("crossed", "MatMul", ("right", "left"), transpose_a=True, transpose_b=True)
    make.node("leaky", "LeakyReLU", "product", alpha=0.2)
    make.node("slopes", "PReLU", "crossed", {"alpha": np.abs(0.3 * make.normal(1, 1, 6))}, shared_axes=[1, 2])
    make.node("pool", "MaxPooling2D", "leaky", pool_size=3, strides=2, padding="same")
    make.node("average", "AveragePooling2D", "slopes", pool_size=3, strides=2, padding="same")
    make.node("padded", "ZeroPadding2D", "pool", padding=((0, 1), (1, 0)))
    make.node("enlarged", "UpSampling2D", "average", size=2, interpolation="bilinear")
    make.node("sized", "Resizing", "enlarged", height=4, width=4, interpolation="nearest")
    make.node("summed", "Add", ("padded", "sized"))
    make.node("rows", "Mean", "summed", axes=(1,))
    make.node("peaks", "GlobalMaxPooling2D", "summed")
    make.node("soft", "Softmax", "rows")
    make.node("middle", "Mean", "soft", axes=(1,))
    make.node("mean_strided", "GlobalAveragePooling2D", "strided")
    make.node("mean_valid", "GlobalAveragePooling2D", "valid")
    make.node("means", "Subtract", ("mean_strided", "mean_valid"))
    make.node("sums", "Add", ("peaks", "means"))
    make.dense("first", "sums", 6, 6)
    make.dense("second", "middle", 6, 6, activation="relu")
    make.dense("third", "second", 6, 6, bias=False)
    return make.graph(("first", "third"))


def raw() -> Graph:
    """An input without a grid: some of its numbers are indices, the others are scaled in float."""
    make = _Builder(6)
    make.input("features", (5,), grid=False)
    make.node("first", "Slice", "features", begin=[0], end=[2], strides=[None])
    make.node("indices", "Cast", "first")
    make.node("embedding", "Embedding", "indices", {"embeddings": make.normal(50, 4)}, input_dim=50, output_dim=4)
    make.node("looked_up", "Flatten", "embedding")
    make.node("rest", "Slice", "features", begin=[2], end=[5], strides=[None])
    make.node("scaled", "FloatAffine", "rest", {"scale": 1 + make.normal(3) ** 2, "offset": make.normal(3)})
    make.node("scaled.grid", "Requantize", "scaled")
    make.dense("dense", "scaled.grid", 3, 8)
    make.node("sum", "Add", ("looked_up", "dense"))
    make.dense("scores", "sum", 8, 3)
    return make.graph(("scores",))


def residual() -> Graph:
    """A residual block, a depthwise layer and a classifier's head: what float layers are tried on."""
    make = _Builder(5)
    make.input("image", (8, 8, 4))
    make.conv("stem", "image", 4, 8, 3, activation="relu6")
    make.depthwise("depthwise", "stem", 8, padding="same", activation="relu6")
    make.conv("branch", "depthwise", 8, 8)
    make.node("add", "Add", ("stem", "branch"))
    make.node("pool", "MaxPooling2D", "add", pool_size=2)
    make.node("slopes", "PReLU", "pool", {"alpha": np.abs(0.3 * make.normal(1, 1, 8))}, shared_axes=[1, 2])
    make.conv("last", "slopes", 8, 12, 3, bias=False)
    make.node("mean", "GlobalAveragePooling2D", "last")
    make.dense("dense", "mean", 12, 5)
    make.node("probabilities", "Softmax", "dense")
    return make.graph(("probabilities",))


def outlier() -> Graph:
    """A weight of 300 on a channel that is always 0 leaves nothing of the other weights on 255 levels."""
    rng = np.random.default_rng(7)
    first = rng.normal(size=(1, 1, 4, 6)).astype(np.float32)
    first[..., 0] = 0
    second = (rng.normal(size=(3, 3, 6, 5)) / 5).astype(np.float32)
    second[1, 1, 0] = 300
    nodes = (
        Node("image", "Input", {"shape": (8, 8, 4), "dtype": "float32"}),
        Node(
            "first",
            "Conv2D",
            {"filters": 6, "kernel_size": 1, "use_bias": False},
            ("image",),
            {"kernel": first},
            "relu",
        ),
        Node("second", "Conv2D", {"filters": 5, "kernel_size": 3, "use_bias": False}, ("first",), {"kernel": second}),
        Node("mean", "GlobalAveragePooling2D", {}, ("second",)),
    )
    return Graph(nodes, ("image",), ("mean",))


ALL: dict[str, Callable[[], Graph]] = {
    made.__name__: made for made in (convolutions, arithmetic, transformer, islands, shared, raw)
}


def draw(graph: Graph, *, seed: int = 0, count: int = SAMPLES) -> dict[str, np.ndarray]:
    """`count` random samples of every input: normal, or token numbers below 50, or what can be both."""
    rng = np.random.default_rng(seed)
    found = {}
    for name in graph.inputs:
        shape, dtype = (count, *graph[name].config["shape"]), graph[name].config["dtype"]
        values = rng.normal(size=shape) if dtype == "float32" else rng.integers(0, 50, shape)
        values = values if graph[name].config.get("grid", True) else 5 * np.abs(values)  # indices among them
        found[name] = values.astype(dtype)
    return found


def specified(
    graph: Graph,
    samples: Mapping[str, np.ndarray],
    precisions: Precision | Mapping[str, Precision] = INT8,
    **options: Any,
) -> QuantizedModel:
    """The quantised model from min-max ranges; precisions and options as in `specify`."""
    calibration = calibrate(graph, [samples], method="minmax", total=SAMPLES)
    return specify(graph, calibration.ranges, precisions, **options)


def representative(samples: Mapping[str, np.ndarray]) -> Callable[[], Iterator[dict[str, np.ndarray]]]:
    """The first samples as TFLiteConverter wants them."""
    return lambda: ({name: array[i : i + 1] for name, array in samples.items()} for i in range(4))


def exported(graph: Graph, precisions: Precision | Mapping[str, Precision] = INT8, **options: Any) -> Case:
    """The graph quantised and exported; precisions and options as in `specify`."""
    samples = draw(graph)
    model = specified(graph, samples, precisions, **options)
    return Case(graph, samples, model, export_quantized(model, representative(samples)))


@functools.cache
def _converted(name: str) -> tuple[Graph, dict[str, np.ndarray], QuantizedModel, bytes]:
    graph = ALL[name]()
    samples = draw(graph)
    model = specified(graph, samples)
    return graph, samples, model, convert_quantized(model, representative(samples))


@functools.cache
def case(name: str, input_type: str = "int8", output_type: str = "int8") -> Case:
    """A graph of `ALL` on 8 bits; the conversion, which takes seconds, is made once for all types at the edges."""
    graph, samples, model, converted = _converted(name)
    model = dataclasses.replace(model, input_type=input_type, output_type=output_type)
    return Case(graph, samples, model, finish(converted, model))


def calibration_of(samples: Mapping[str, np.ndarray]) -> CalibrationSet:
    """Calibration samples in the roles that as many have."""
    return CalibrationSet.of(Samples.of(samples))
