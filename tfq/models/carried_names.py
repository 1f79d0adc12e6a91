"""What a model file may name and no rule knows: it is carried through as it is (`tfq.models.carried`).

None of it runs functions that it is given, or opens anything.
"""

from __future__ import annotations

import re

LAYERS = """
    AdaptiveAveragePooling1D AdaptiveAveragePooling2D AdaptiveAveragePooling3D AdaptiveMaxPooling1D AdaptiveMaxPooling2D
    AdaptiveMaxPooling3D AveragePooling3D AvgPool3D CategoryEncoding CenterCrop Conv3D Conv3DTranspose ConvLSTM1D
    ConvLSTM2D ConvLSTM3D Convolution3D Convolution3DTranspose Discretization GRU GlobalMaxPool3D GlobalMaxPooling3D
    GroupQueryAttention LSTM LocallyConnected1D LocallyConnected2D Masking MaxPool3D MaxPooling3D MelSpectrogram
    RMSNormalization RandomCrop STFTSpectrogram SimpleRNN ZeroPadding3D
"""
# Of keras.ops: all but those that take functions (loops, conditions), count differently in each run, or train.
KERAS = """
    AdaptiveAveragePool AdaptiveMaxPool AffineTransform All Amax Amin Angle Any Append Arccos Arccosh Arcsin Arcsinh
    Arctan Arctan2 Arctanh Argmax Argmin Argpartition Argsort ArraySplit Average AveragePool BatchNorm BitwiseAnd
    BitwiseInvert BitwiseLeftShift BitwiseNot BitwiseOr BitwiseRightShift BitwiseXor BroadcastTo CDist Cbrt Celu
    Cholesky Conj Conv ConvTranspose ConvertToTensor Correlate Cosh CountNonzero CropImages Cross Cumprod Cumsum Deg2rad
    DepthwiseConv Det Diag Diagonal Diff Digitize DivideNoNan Dot DotProductAttention Dsplit Dstack Einsum Equal Erfc
    Erfinv Exp2 ExtractPatches ExtractSequences FFT FFT2 Fabs Flip Fliplr Flipud FloorDivide Fmax Fmin Fmod Fold
    FullLike GaussianBlur Glu Greater GreaterEqual HSVToRGB HardShrink HardTanh Heaviside Hsplit Hstack Hypot IFFT2
    IRFFT ISTFT Imag Inner Inv IsIn Isclose Isfinite Isinf Isnan Kron LayerNorm Ldexp LeftShift Less LessEqual Log10
    Log2 Logaddexp Logaddexp2 LogicalAnd LogicalNot LogicalOr LogicalXor Logsumexp MapCoordinates MaxPool Median Min Mod
    Moments Moveaxis MultiHot NanToNum Norm NotEqual OneHot OnesLike Outer PadImages Percentile PerspectiveTransform
    Prod Ptp Quantile RFFT RGBToGrayscale RGBToHSV RMSNorm Rad2deg Ravel Real Repeat Resize RightShift Roll Rot90 Round
    STFT SaturateCast Scatter ScatterUpdate SearchSorted SegmentMax SegmentSum Select SeparableConv Signbit Sinc Sinh
    Slice SliceUpdate SobelEdges SoftShrink Solve SolveTriangular Sort SparsePlus SparseSigmoid Sparsemax Squareplus Std
    Take TakeAlongAxis Tan TanhShrink Tensordot Threshold Tile TopK Trace Tril Triu Trunc Unfold UnravelIndex Var Vdot
    Vstack Where ZerosLike
"""
# Of TensorFlow: functions of these modules, and some that stand in none.
_MODULES = re.compile(
    r"(math|linalg|nn|signal|bitwise|image)\.[a-z][a-z0-9_]*|compat\.v1\.(where|gather|pad|transpose)"
)
_NOT = re.compile(r".*(decode|encode|random|dropout|rnn|sampled|loss|sample|jpeg|png|draw|all_candidate|map_fn).*")
_TENSORFLOW = """
    argsort batch_to_space boolean_mask broadcast_to clip_by_norm cumsum einsum equal eye fill floor gather gather_nd
    greater greater_equal less less_equal linspace logical_and logical_not logical_or logical_xor meshgrid norm
    not_equal one_hot ones ones_like range rank repeat reverse reverse_sequence roll round scatter_nd searchsorted
    sequence_mask size slice sort space_to_batch strided_slice tensor_scatter_nd_add tensor_scatter_nd_update tensordot
    tile where zeros zeros_like __operators__.add __operators__.ge __operators__.gt __operators__.le __operators__.lt
    __operators__.eq __operators__.ne
"""
_PLAIN = frozenset(_TENSORFLOW.split())


def may_carry(symbol: str) -> bool:
    """Whether a file may name this public symbol of TensorFlow."""
    return symbol in _PLAIN or bool(_MODULES.fullmatch(symbol) and not _NOT.fullmatch(symbol))
