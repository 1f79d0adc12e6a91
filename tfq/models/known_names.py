"""What a stored model configuration may name: the allow-list of `tfq.models.rebuild`.

The layers and operators that have a row in the tables of the frontends, and what else may stand in a file. None of this
imports TensorFlow, so that a file can be refused before. `tests/models/test_known_names.py` compares the lists with the
installed libraries.
"""

from __future__ import annotations

from tfq.models import carried_names, keras_layers, operators

MODELS = frozenset({"Functional", "Model", "Sequential"})
# Layers that hold others, in their keys "layer" and "backward_layer".
WRAPPERS = frozenset({"Bidirectional", "SpectralNormalization", "TimeDistributed"})
# Layers without a row in `LAYERS` of the frontends, which are written out in operators, and the parts of any model.
_OTHER_LAYERS = """
    AdditiveAttention Attention Cropping3D GlobalAveragePooling3D GlobalAvgPool3D InputLayer Layer ReversibleEmbedding
    UpSampling3D
"""
# Layers whose configuration is numbers, words of `WORDS` and activations. Some classes stand here by two names.
_ALIASES = (alias for row in keras_layers.LAYERS.values() for alias in row.aliases)
LAYERS = frozenset({
    *keras_layers.LAYERS, *_ALIASES, *_OTHER_LAYERS.split(), *carried_names.LAYERS.split()})  # fmt: skip
# Layers that are not public but stand in models of keras.applications, with their modules; tf_keras has them in
# modules of the same names.
HIDDEN_LAYERS = {"LayerScale": "keras.src.applications.convnext"}
# Layers of Keras' own that never have a place in a graph; several of them open files or run code.
NOT_TAKEN = frozenset({
    "AbstractRNNCell", "AutoContrast", "ContrastLimitedAdaptiveHistogramEqualization", "DenseFeatures",
    "Equalization", "FlaxLayer", "GRUCell", "HashedCrossing", "Hashing", "IntegerLookup", "JaxLayer", "LSTMCell",
    "MaxNumBoundingBoxes", "Pipeline", "RNN", "SimpleRNNCell", "Solarization", "StackedRNNCells", "StringLookup",
    "TFSMLayer", "TextVectorization", "TorchModuleWrapper", "Wrapper",
})  # fmt: skip

ACTIVATIONS = frozenset({
    "celu", "elu", "exponential", "gelu", "glu", "hard_shrink", "hard_sigmoid", "hard_silu", "hard_swish",
    "hard_tanh", "leaky_relu", "linear", "log_sigmoid", "log_softmax", "mish", "relu", "relu6", "selu", "sigmoid",
    "silu", "soft_shrink", "softmax", "softplus", "softsign", "sparse_plus", "sparse_sigmoid", "sparsemax",
    "squareplus", "swish", "tanh", "tanh_shrink", "threshold",
})  # fmt: skip

KERAS_OPERATIONS = frozenset({*operators.KERAS, *carried_names.KERAS.split()})
# Layers of tf_keras that call a TensorFlow function by its public symbol, and those symbols.
TF_OPERATOR_LAYERS = frozenset({"SlicingOpLambda", "TFOpLambda"})
TF_SYMBOLS = frozenset({*operators.TENSORFLOW, *operators.SHAPES})

DTYPES = frozenset({
    "bfloat16", "bool", "float16", "float32", "float64", "int16", "int32", "int64", "int8", "string", "uint16",
    "uint32", "uint64", "uint8",
})  # fmt: skip
POLICIES = DTYPES | {"mixed_bfloat16", "mixed_float16"}

# Every word that an option of these layers and operators may have.
WORDS = frozenset({
    "valid", "same", "causal", "VALID", "SAME", "channels_last", "channels_first", "NHWC", "NCHW",
    "nearest", "bilinear", "bicubic", "area", "lanczos3", "lanczos5", "gaussian", "mitchellcubic",
    "constant", "reflect", "wrap", "symmetric", "CONSTANT", "REFLECT", "SYMMETRIC", "dot", "concat",
    "sum", "mul", "ave", "horizontal", "vertical", "horizontal_and_vertical", "stateful", "stateless",
    "legacy_stateful",
})  # fmt: skip
