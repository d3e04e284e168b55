"""Networks from lists of weight arrays, as numpy, flax and keras hold them: dense layers with ReLUs between."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from toolkit.arrays import FloatArray
from toolkit.data.arguments import one_of, text
from toolkit.networks.importers.chain import OperationChain
from toolkit.networks.parts import NetworkParts
from toolkit.networks.weights import exact_float64

ORIENTATIONS = ("out_in", "in_out")  # torch stores W as (outputs, inputs), flax, keras and scikit-learn the other way
Layer = tuple[ArrayLike, ArrayLike | None]


def read_weight_arrays(layers: Sequence[Layer], orientation: str, name: str = "") -> NetworkParts:
    """The network x ↦ W_L ReLU(… ReLU(W_1 x + b_1) …) + b_L.

    layers: pairs (W, b) in order, b of shape (outputs,) or None for zeros. orientation: "out_in" for W of shape
    (outputs, inputs), as torch has it, "in_out" for (inputs, outputs), as flax, keras and scikit-learn have it.
    Raises ValueError naming the layer whose arrays do not fit, and numbers that float64 would round.

    Checked: that each layer's inputs are the outputs of the one before, and each bias its outputs. Trusted: the
    orientation of square layers, and that ReLUs stand between the layers and nowhere else.
    """
    matrices, biases = checked_layers(layers, orientation)
    chain = OperationChain((matrices[0].shape[1],))
    for k, (weight, bias) in enumerate(zip(matrices, biases, strict=True)):
        if k:
            chain.relu()
        chain.dense(weight, bias)
    return chain.parts(text("name", name))


def checked_layers(layers: Sequence[Layer], orientation: str) -> tuple[list[FloatArray], list[FloatArray | None]]:
    """The matrices as (outputs, inputs), and the biases, in float64. Raises ValueError where they do not chain."""
    one_of("orientation", orientation, ORIENTATIONS)
    if not isinstance(layers, Sequence) or isinstance(layers, str) or not layers:
        raise ValueError(f"layers must be a list of pairs (W, b), got {type(layers).__name__} of no layers")
    matrices: list[FloatArray] = []
    biases: list[FloatArray | None] = []
    for k, layer in enumerate(layers):
        if not isinstance(layer, Sequence) or len(layer) != 2:
            raise ValueError(f"layer {k} must be a pair (W, b), got {type(layer).__name__}")
        given = exact_float64(f"W of layer {k}", layer[0])
        if given.ndim != 2:
            raise ValueError(f"W of layer {k} must be a matrix, got shape {given.shape}")
        weight = given if orientation == "out_in" else np.ascontiguousarray(given.T)
        bias = None if layer[1] is None else exact_float64(f"b of layer {k}", layer[1])
        inputs = matrices[-1].shape[0] if matrices else weight.shape[1]
        if weight.shape[1] != inputs or (bias is not None and bias.shape != weight.shape[:1]):
            raise ValueError(_mismatch(k, given.shape, None if bias is None else bias.shape, inputs, orientation))
        matrices.append(weight)
        biases.append(bias)
    return matrices, biases


def _mismatch(k: int, shape: tuple[int, ...], bias: tuple[int, ...] | None, inputs: int, orientation: str) -> str:
    """What does not fit, and whether the other orientation would."""
    other = ORIENTATIONS[1 - ORIENTATIONS.index(orientation)]
    turned = shape if other == "out_in" else shape[::-1]
    fits = bias in (None, turned[:1]) and (k == 0 or turned[1] == inputs)
    hint = f"; it fits orientation {other!r}" if fits else ""
    found = f"W of shape {shape} and b of shape {bias}"
    return f"layer {k} has {found} for {inputs} inputs in orientation {orientation!r}{hint}"
