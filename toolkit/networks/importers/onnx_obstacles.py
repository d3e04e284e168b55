"""What is said of ONNX operators that an import does not know: what kind of function they are."""

from __future__ import annotations

_SMOOTH = (
    "Acos, Acosh, Asin, Asinh, Atan, Atanh, Attention, Celu, Cos, Cosh, Det, Elu, Erf, Exp, GRU, Gelu, "
    "GroupNormalization, HardSwish, InstanceNormalization, LRN, LSTM, LayerNormalization, Log, "
    "LogSoftmax, LpNormalization, LpPool, MeanVarianceNormalization, Mish, Pow, RMSNormalization, RNN, "
    "Reciprocal, ReduceL2, ReduceLogSum, ReduceLogSumExp, ReduceProd, ReduceSumSquare, Selu, Sigmoid, "
    "Sin, Sinh, Softmax, Softplus, Softsign, Sqrt, Swish, Tan, Tanh"
)
_JUMPING = (
    "And, ArgMax, ArgMin, BitShift, Ceil, DynamicQuantizeLinear, Equal, Floor, Greater, GreaterOrEqual, "
    "Hardmax, IsInf, IsNaN, Less, LessOrEqual, Mod, Multinomial, NonMaxSuppression, NonZero, Not, OneHot, "
    "Or, QuantizeLinear, Round, Sign, ThresholdedRelu, Unique, Xor"
)
_LINEAR = (
    "AffineGrid, CenterCropPad, Col2Im, Compress, CumSum, DFT, DequantizeLinear, Einsum, EyeLike, "
    "GlobalLpPool, GridSample, MaxRoiPool, MaxUnpool, ReduceL1, ReverseSequence, RoiAlign, STFT, Shrink, "
    "TopK, Trilu"
)
_NAMES = {
    "it is not piecewise linear": _SMOOTH,
    "it is not continuous, so not what a ReLU network computes": _JUMPING,
    "it is piecewise linear for most of its settings, but not known here": _LINEAR,
}


def kind_of(operator: str) -> str | None:
    """What kind of function an operator that no import knows is; None where that is not known either."""
    return next((kind for kind, names in _NAMES.items() if operator in names.split(", ")), None)


def onnx_obstacle(operator: str) -> str:
    """Why an operator on features is refused."""
    kind = kind_of(operator) or "it is not known whether it is piecewise linear"
    return f"operator {operator} is not supported: {kind}"
