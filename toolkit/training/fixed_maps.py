"""Affine maps whose weights are not trained: what skip connections and pooling put between layers, on torch tensors."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from toolkit.arrays import SparseMatrix
from toolkit.networks.convolutions import Conv2d
from toolkit.networks.layers import AffineMap, Dense
from toolkit.networks.weights import checked_matrix

TrainedMap = Dense | Conv2d


class FixedMap(AffineMap):
    """x ↦ matrix·x + bias with a constant scipy.sparse matrix, for torch tensors of the bias's dtype and device."""

    def __init__(self, matrix: SparseMatrix, bias: Tensor) -> None:
        self.matrix = checked_matrix(matrix)
        self.output_size, self.input_size = map(int, self.matrix.shape)
        if tuple(bias.shape) != (self.output_size,):
            raise ValueError(f"FixedMap bias must have shape ({self.output_size},), got {tuple(bias.shape)}")
        self.bias = bias
        entries = self.matrix.tocoo()
        places = torch.from_numpy(np.stack(entries.coords).astype(np.int64))
        data = torch.from_numpy(np.array(entries.data)).to(bias.dtype)
        whole = torch.sparse_coo_tensor(places, data, entries.shape, device=bias.device, check_invariants=True)
        self._weight, self._transposed = whole.coalesce(), whole.mT.coalesce()

    @property
    def bias_vector(self) -> Tensor:
        return self.bias

    def linear(self, x: Tensor) -> Tensor:
        return _product(self._weight, x)

    def adjoint(self, nu: Tensor) -> Tensor:
        return _product(self._transposed, nu)

    def to_sparse(self) -> SparseMatrix:
        return self.matrix


class Composed(AffineMap):
    """trained∘selection: a layer that reads selected entries of a place.

    selection: a FixedMap of zeros and ones without bias that takes every input at most once, and one per output, so
    that |WS| = |W|S.
    """

    def __init__(self, selection: FixedMap, trained: TrainedMap) -> None:
        if selection.output_size != trained.input_size:
            raise ValueError(f"the selection gives {selection.output_size} features, the layer takes "
                             f"{trained.input_size}")  # fmt: skip
        self.selection, self.trained = selection, trained
        self.input_size, self.output_size = selection.input_size, trained.output_size

    @property
    def bias_vector(self) -> Tensor:
        return self.trained.bias_vector

    def linear(self, x: Tensor) -> Tensor:
        return self.trained.linear(self.selection.linear(x))

    def adjoint(self, nu: Tensor) -> Tensor:
        return self.selection.adjoint(self.trained.adjoint(nu))

    def to_sparse(self) -> SparseMatrix:
        return self.trained.to_sparse() @ self.selection.matrix


def _product(weight: Tensor, x: Tensor) -> Tensor:
    """weight·x along the last axis."""
    columns = x.reshape(-1, x.shape[-1]).mT
    return torch.sparse.mm(weight, columns).mT.reshape(*x.shape[:-1], weight.shape[0])


def unbiased(layer: TrainedMap) -> TrainedMap:
    """The map without its bias, on the same weight."""
    if isinstance(layer, Dense):
        return Dense(layer.weight)
    return Conv2d(layer.weight, None, layer.shape, layer.stride, layer.padding, layer.dilation, layer.groups)


def magnitude(layer: AffineMap) -> AffineMap:
    """|W| of the layer's W; its bias means nothing. Raises ValueError for a map that training does not know."""
    if isinstance(layer, Dense):
        return Dense(abs(layer.weight), layer.bias)
    if isinstance(layer, Conv2d):
        geometry = layer.shape, layer.stride, layer.padding, layer.dilation, layer.groups
        return Conv2d(abs(layer.weight), layer.bias, *geometry)
    if isinstance(layer, FixedMap):
        return FixedMap(abs(layer.matrix), layer.bias)
    if isinstance(layer, Composed):
        absolute = magnitude(layer.trained)
        assert isinstance(absolute, Dense | Conv2d)
        return Composed(layer.selection, absolute)
    raise ValueError(f"layers must be Dense or Conv2d to be trained, got {type(layer).__name__}")
