"""What is said of ATen operators that an import does not know: what kind of function they are."""

from __future__ import annotations

_SMOOTH = frozenset(
    (
        *("sigmoid", "tanh", "exp", "log", "pow", "sqrt", "rsqrt", "reciprocal", "erf", "gelu", "elu", "selu", "celu"),
        *("silu", "mish", "softplus", "hardswish", "softmax", "_softmax", "log_softmax", "_log_softmax", "sin", "cos"),
        *("layer_norm", "native_layer_norm", "group_norm", "instance_norm", "scaled_dot_product_attention", "softsign"),
    )
)
_JUMPING = frozenset(
    (
        "sign",
        "floor",
        "ceil",
        "round",
        "trunc",
        "argmax",
        "argmin",
        "gt",
        "lt",
        "ge",
        "le",
        "eq",
        "ne",
        "sgn",
        "heaviside",
    )
)


def aten_obstacle(operator: str) -> str:
    """Why an operator on features is refused."""
    if operator in _SMOOTH:
        return f"{operator} is not piecewise linear"
    if operator in _JUMPING:
        return f"{operator} is not continuous, so not what a ReLU network computes"
    return f"{operator} is not known here"
