"""Every layer as the operations of `tfq.operations.table.OPERATORS` and `Affine`.

Each rule is exact in real arithmetic. 1-D layers become 2-D ones on images of height 1; dense layers on
inputs of rank above 2 become 1x1 convolutions, so that weights stay per channel and the batch axis is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfq.models.equality import tensor_shapes
from tfq.models.graph import INPUT, Graph, Node
from tfq.models.rewrite import made_by, rewrite
from tfq.models.rules.activations import activation, elu, group_normalization, layer_normalization, prelu, relu, softmax
from tfq.models.rules.affine_maps import batch_normalization, normalization, rescaling
from tfq.models.rules.attention import attention, multi_head_attention
from tfq.models.rules.convolutions import conv1d, conv2d, no_dilation, separable_conv2d
from tfq.models.rules.dense import dense, einsum_dense
from tfq.models.rules.merging import concatenate, dot, merge
from tfq.models.rules.resampling import (
    border1d,
    center_crop,
    global_pool1d,
    interpolation,
    pool1d,
    repeat_vector,
    upsampling1d,
)
from tfq.models.rules.rule import Rule, refuse
from tfq.operations.table import OPERATORS

_TRAINING_LAYERS = """
    Dropout AlphaDropout GaussianDropout GaussianNoise SpatialDropout1D SpatialDropout2D SpatialDropout3D
    ActivityRegularization Identity RandomFlip RandomRotation RandomTranslation RandomZoom RandomContrast
    RandomBrightness RandomHeight RandomWidth
"""
_RECURRENT_LAYERS = "LSTM GRU SimpleRNN Bidirectional RNN ConvLSTM1D ConvLSTM2D ConvLSTM3D"
_MASK_READING_LAYERS = "GlobalAveragePooling1D MultiHeadAttention Attention AdditiveAttention Softmax TimeDistributed"
TRAINING_ONLY = frozenset(_TRAINING_LAYERS.split())
_RECURRENT = frozenset(_RECURRENT_LAYERS.split())
_MASK_READERS = frozenset(_MASK_READING_LAYERS.split())


def drop_training_layers(graph: Graph) -> Graph:
    """Remove the layers that are the identity outside training."""
    return rewrite(graph, lambda node: node.inputs[0] if node.kind in TRAINING_ONLY else None)


def split_activations(graph: Graph) -> Graph:
    """Give every activation that a layer's config fuses a node of its own, `<layer>.<activation>`."""

    def rule(node: Node) -> list[Node] | None:
        kind, config = _activation_layer(node.config.get("activation"))
        if node.kind == "Activation" or config == {"activation": "linear"}:
            return None
        bare = node.replace(config={k: v for k, v in node.config.items() if k != "activation"})
        role = config["activation"] if kind == "Activation" else kind.lower()
        return [bare, made_by(node, role, kind, (node.name,), config)]

    return rewrite(graph, rule)


def _activation_layer(value: Any) -> tuple[str, dict[str, Any]]:
    """The layer kind and config that a Keras `activation=` value stands for."""
    if isinstance(value, Mapping):
        if isinstance(value["config"], str):  # a serialised function
            return "Activation", {"activation": value["config"]}
        return value["class_name"], {
            k: v for k, v in value["config"].items() if k not in ("name", "dtype", "trainable")
        }
    return "Activation", {"activation": value or "linear"}


RULES: dict[str, Rule] = {
    "Activation": activation,
    "ReLU": relu,
    "ELU": elu,
    "PReLU": prelu,
    "Softmax": softmax,
    "LayerNormalization": layer_normalization,
    "GroupNormalization": group_normalization,
    "BatchNormalization": batch_normalization,
    "Rescaling": rescaling,
    "Normalization": normalization,
    "Dense": dense,
    "EinsumDense": einsum_dense,
    "MultiHeadAttention": multi_head_attention,
    "Attention": attention,
    "Conv1D": conv1d,
    "Conv1DTranspose": conv1d,
    "DepthwiseConv1D": conv1d,
    "SeparableConv1D": conv1d,
    "SeparableConv2D": separable_conv2d,
    "Conv2D": conv2d,
    "Conv2DTranspose": no_dilation,
    "MaxPooling1D": pool1d,
    "AveragePooling1D": pool1d,
    "GlobalAveragePooling1D": global_pool1d,
    "GlobalMaxPooling1D": global_pool1d,
    "ZeroPadding1D": border1d,
    "Cropping1D": border1d,
    "UpSampling1D": upsampling1d,
    "UpSampling2D": interpolation,
    "Resizing": interpolation,
    "RepeatVector": repeat_vector,
    "CenterCrop": center_crop,
    "Concatenate": concatenate,
    "Dot": dot,
    **dict.fromkeys(("Add", "Average", "Multiply", "Maximum", "Minimum", "Subtract"), merge),
}


def require_supported(graph: Graph) -> None:
    """Refuse by name what `decompose` cannot take.

    Raises:
      UserError: the first such layer, its kind, why, and the way out.
    """
    kinds = {node.kind for node in graph.nodes}
    for node in graph.nodes:
        if node.kind in _RECURRENT:
            raise refuse(node, "recurrent layers have no static int8 form", "use Conv1D or attention layers")
        if node.kind not in {INPUT, "Affine", *OPERATORS, *RULES, *TRAINING_ONLY}:
            raise refuse(node, "there is no int8 operation for it", "replace it by layers of the supported kinds")
        if node.config.get("data_format") == "channels_first":
            raise refuse(node, "data_format is channels_first", "rebuild the model with channels_last")
        if node.config.get("mask_zero") and kinds & _MASK_READERS:
            raise refuse(
                node, "mask_zero=True sends a mask to later layers, which TFLite cannot", "train with mask_zero=False"
            )


def decompose(graph: Graph) -> Graph:
    """Rewrite every node into the kinds of `OPERATORS` and `Affine`; fused activations must be split already."""
    shapes = tensor_shapes(graph)
    inputs = {node.name: [shapes[i] for i in node.inputs] for node in graph.nodes}

    def rule(node: Node) -> list[Node] | str | None:
        found = RULES.get(node.kind)
        return found(node, inputs[node.name], shapes[node.name]) if found else None

    return rewrite(graph, rule)
