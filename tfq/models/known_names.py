"""What a stored model configuration may name: the allow-list of `tfq.models.rebuild`.

Plain text, so that a file can be refused before TensorFlow is imported. `tests/models/test_known_names.py`
compares the lists with the installed libraries and with the tables of the two frontends.
"""

from __future__ import annotations

MODELS = frozenset({"Functional", "Model", "Sequential"})
# Layers that hold another layer in their key "layer".
WRAPPERS = frozenset({"SpectralNormalization", "TimeDistributed"})
# Layers whose configuration is numbers, words of `WORDS` and activations. Some classes stand here by two names.
LAYERS = frozenset({
    "Activation", "ActivityRegularization", "Add", "AdditiveAttention", "AlphaDropout", "Attention", "AugMix",
    "Average", "AveragePooling1D", "AveragePooling2D", "AvgPool1D", "AvgPool2D", "BatchNormalization", "Concatenate",
    "Conv1D", "Conv1DTranspose", "Conv2D", "Conv2DTranspose", "Convolution1D", "Convolution1DTranspose",
    "Convolution2D", "Convolution2DTranspose", "Cropping1D", "Cropping2D", "Cropping3D", "CutMix", "Dense",
    "DepthwiseConv1D", "DepthwiseConv2D", "Dot", "Dropout", "ELU", "EinsumDense", "Embedding", "Flatten",
    "GaussianDropout", "GaussianNoise", "GlobalAveragePooling1D", "GlobalAveragePooling2D", "GlobalAveragePooling3D",
    "GlobalAvgPool1D", "GlobalAvgPool2D", "GlobalAvgPool3D", "GlobalMaxPool1D", "GlobalMaxPool2D",
    "GlobalMaxPooling1D", "GlobalMaxPooling2D", "GroupNormalization", "Identity", "InputLayer", "Layer",
    "LayerNormalization", "LeakyReLU", "MaxPool1D", "MaxPool2D", "MaxPooling1D", "MaxPooling2D", "Maximum", "Minimum",
    "MixUp", "MultiHeadAttention", "Multiply", "Normalization", "PReLU", "Permute", "RandAugment", "RandomBrightness",
    "RandomColorDegeneration", "RandomColorJitter", "RandomContrast", "RandomElasticTransform", "RandomErasing",
    "RandomFlip", "RandomGaussianBlur", "RandomGrayscale", "RandomHeight", "RandomHue", "RandomInvert",
    "RandomPerspective", "RandomPosterization", "RandomRotation", "RandomSaturation", "RandomSharpness",
    "RandomShear", "RandomTranslation", "RandomWidth", "RandomZoom", "ReLU", "RepeatVector", "Rescaling", "Reshape",
    "Resizing", "ReversibleEmbedding", "SeparableConv1D", "SeparableConv2D", "SeparableConvolution1D",
    "SeparableConvolution2D", "Softmax", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "Subtract",
    "ThresholdedReLU", "UnitNormalization", "UpSampling1D", "UpSampling2D", "UpSampling3D", "ZeroPadding1D",
    "ZeroPadding2D",
})  # fmt: skip
# Layers that are not public but stand in models of keras.applications, with their modules; tf_keras has them in
# modules of the same names.
HIDDEN_LAYERS = {"LayerScale": "keras.src.applications.convnext"}
RECURRENT = frozenset({
    "AbstractRNNCell", "Bidirectional", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D", "GRU", "GRUCell", "LSTM",
    "LSTMCell", "RNN", "SimpleRNN", "SimpleRNNCell", "StackedRNNCells",
})  # fmt: skip
# Layers of Keras' own that never have a place in a graph; several of them open files or run code.
NOT_TAKEN = frozenset({
    "AdaptiveAveragePooling1D", "AdaptiveAveragePooling2D", "AdaptiveAveragePooling3D", "AdaptiveMaxPooling1D",
    "AdaptiveMaxPooling2D", "AdaptiveMaxPooling3D", "AutoContrast", "AveragePooling3D", "AvgPool3D",
    "CategoryEncoding", "CenterCrop", "ContrastLimitedAdaptiveHistogramEqualization", "Conv3D", "Conv3DTranspose",
    "Convolution3D", "Convolution3DTranspose", "DenseFeatures", "Discretization", "Equalization", "FlaxLayer",
    "GlobalMaxPool3D", "GlobalMaxPooling3D", "GroupQueryAttention", "HashedCrossing", "Hashing", "IntegerLookup",
    "JaxLayer", "LocallyConnected1D", "LocallyConnected2D", "Masking", "MaxNumBoundingBoxes", "MaxPool3D",
    "MaxPooling3D", "MelSpectrogram", "Pipeline", "RMSNormalization", "RandomCrop", "STFTSpectrogram", "Solarization",
    "StringLookup", "TFSMLayer", "TextVectorization", "TorchModuleWrapper", "Wrapper", "ZeroPadding3D",
})  # fmt: skip

ACTIVATIONS = frozenset({
    "celu", "elu", "exponential", "gelu", "glu", "hard_shrink", "hard_sigmoid", "hard_silu", "hard_swish",
    "hard_tanh", "leaky_relu", "linear", "log_sigmoid", "log_softmax", "mish", "relu", "relu6", "selu", "sigmoid",
    "silu", "soft_shrink", "softmax", "softplus", "softsign", "sparse_plus", "sparse_sigmoid", "sparsemax",
    "squareplus", "swish", "tanh", "tanh_shrink", "threshold",
})  # fmt: skip

# Operations of keras.ops, by class name, that `tfq.models.keras3` has a rule for.
KERAS_OPERATIONS = frozenset({
    "Abs", "Absolute", "Add", "Cast", "Ceil", "Clip", "Concatenate", "Copy", "Cos", "DepthToSpace", "Divide", "Elu",
    "Erf", "Exp", "ExpandDims", "Expm1", "Floor", "Gelu", "GetItem", "HardSigmoid", "HardSilu", "LeakyRelu", "Log",
    "Log1p", "LogSigmoid", "LogSoftmax", "Matmul", "Max", "Maximum", "Mean", "Minimum", "Mish", "Multiply",
    "Negative", "Pad", "Power", "ReLU", "Reciprocal", "Relu", "Relu6", "Reshape", "Rsqrt", "Selu", "Sigmoid", "Sign",
    "Silu", "Sin", "Softmax", "Softplus", "Softsign", "SpaceToDepth", "Split", "Sqrt", "Square", "Squeeze", "Stack",
    "StopGradient", "Subtract", "Sum", "Swapaxes", "Tanh", "Transpose", "TrueDivide", "Unstack",
})  # fmt: skip

# Layers of tf_keras that call a TensorFlow function by its public symbol, and those symbols that
# `tfq.models.tf_keras_models` has a rule for.
TF_OPERATOR_LAYERS = frozenset({"SlicingOpLambda", "TFOpLambda"})
TF_SYMBOLS = frozenset({
    "__operators__.add", "__operators__.getitem", "cast", "clip_by_value", "compat.v1.expand_dims",
    "compat.v1.image.resize", "compat.v1.pad", "compat.v1.shape", "compat.v1.squeeze", "compat.v1.transpose",
    "concat", "expand_dims", "identity", "image.resize", "linalg.matmul", "math.abs", "math.add", "math.add_n",
    "math.ceil", "math.cos", "math.divide", "math.erf", "math.exp", "math.expm1", "math.floor", "math.log",
    "math.log1p", "math.log_sigmoid", "math.maximum", "math.minimum", "math.multiply", "math.negative", "math.pow",
    "math.reciprocal", "math.reduce_max", "math.reduce_mean", "math.reduce_sum", "math.rsqrt", "math.sigmoid",
    "math.sign", "math.sin", "math.softplus", "math.softsign", "math.sqrt", "math.square", "math.subtract",
    "math.tanh", "math.truediv", "nn.avg_pool2d", "nn.bias_add", "nn.depth_to_space", "nn.elu", "nn.gelu",
    "nn.leaky_relu", "nn.log_softmax", "nn.max_pool2d", "nn.relu", "nn.relu6", "nn.selu", "nn.silu", "nn.softmax",
    "nn.softplus", "nn.softsign", "nn.space_to_depth", "pad", "reshape", "shape", "shape_v2", "split", "squeeze",
    "stack", "stop_gradient", "transpose", "unstack",
})  # fmt: skip

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
    "horizontal", "vertical", "horizontal_and_vertical", "stateful", "stateless", "legacy_stateful",
})  # fmt: skip
