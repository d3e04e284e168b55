"""The canonical network: stages that read the input and the outputs of any earlier stages.

    x̂⁽ᵏ⁾ = b_k + Σ_{j<k} W_kj y⁽ʲ⁾,   y⁽⁰⁾ = x̃,   y⁽ᵏ⁾ = max(x̂⁽ᵏ⁾, 0), or x̂⁽ᵏ⁾ in a linear stage.

Place j is what stages read: 0 is the input, k + 1 what stage k (counted from 0) gives. A chain's stage k reads place k
alone; a residual block's last stage reads two places.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import scipy.sparse as sp

from toolkit.arrays import Array, FloatArray, IndexArray, Matrix, SparseMatrix
from toolkit.networks.kernel_operators import KernelOperator
from toolkit.networks.layers import AffineMap, Dense, Sparse


@dataclass(frozen=True, eq=False)
class Stage:
    """x̂ = b + Σ W y⁽ʲ⁾ over the sources (j, W), followed by a ReLU or, where `relu` is False, by nothing.

    b is the bias of the first source's map; ValueError unless the biases of all others are 0. Errors of all maps
    (layers.py) count. Rows and points lie along the last axis.
    """

    sources: tuple[tuple[int, AffineMap], ...]
    relu: bool = True

    def __post_init__(self) -> None:
        for place, layer in self.sources[1:]:
            if bool((layer.bias_vector != 0).any()):
                raise ValueError(f"only the first map of a stage may have a bias, got one from place {place}")

    @property
    def bias(self) -> Array:
        """b, shape (n,)."""
        return self.sources[0][1].bias_vector

    def forward(self, outputs: Sequence[Array]) -> Array:
        """x̂ from the outputs of all places before. Shapes: (…, n_j) each → (…, n)."""
        return self.linear_part(outputs) + self.bias

    def linear_part(self, outputs: Sequence[Array]) -> Array:
        """x̂ without b."""
        place, first = self.sources[0]
        total = first.linear(outputs[place])
        for place, layer in self.sources[1:]:
            total = total + layer.linear(outputs[place])
        return total

    def adjoint(self, multipliers: Array) -> list[tuple[int, Array]]:
        """(j, λW_kj) for every source; λ (…, n), numpy, torch or scipy.sparse rows."""
        return [(place, layer.adjoint(multipliers)) for place, layer in self.sources]

    def constant(self, multipliers: Array) -> Array:
        """λ·b. Shapes: (…, n) → (…,)."""
        return multipliers @ self.bias

    def compose_rows(self, rows: Matrix) -> tuple[dict[int, Array], FloatArray]:
        """rows·W_kj per source and rows·b, for `rows` of shape (m, n); sparse rows stay sparse on sparse maps."""
        found = {place: layer.compose_rows(rows) for place, layer in self.sources}
        return {place: part for place, (part, _) in found.items()}, found[self.sources[0][0]][1]

    def linear(self) -> Stage:
        """The same without its ReLU."""
        return Stage(self.sources, False)

    @property
    def output_size(self) -> int:
        """Number of neurons n."""
        return self.sources[0][1].output_size

    @property
    def stacked(self) -> AffineMap:
        """The one map [W_kj …] and b over all sources side by side, with the errors of all; a lone source's own map."""
        return self.sources[0][1] if len(self.sources) == 1 else self._joined

    @cached_property
    def _joined(self) -> AffineMap:
        maps = [layer for _, layer in self.sources]
        if any(isinstance(layer.operand(), KernelOperator) for layer in maps):
            whole: AffineMap = _SideBySide(maps)
        else:
            whole = Sparse(sp.hstack([layer.to_sparse() for layer in maps], format="csr"), self.bias)
        errors = ((layer.input_size, layer.column_error) for layer in maps)
        columns = [np.zeros(size) if error is None else error for size, error in errors]
        return whole.with_error(np.concatenate(columns), sum(layer.bias_error for layer in maps))

    def gathered(self, places: Sequence[FloatArray]) -> FloatArray:
        """One value per input of `stacked`, from values per place."""
        if len(self.sources) == 1:
            return places[self.sources[0][0]]
        return np.concatenate([places[place] for place, _ in self.sources])

    def gathered_indices(self, places: Sequence[IndexArray]) -> IndexArray:
        """Inputs of `stacked`, from indices of the values of every place."""
        if len(self.sources) == 1:
            return places[self.sources[0][0]]
        starts = np.cumsum([0, *(layer.input_size for _, layer in self.sources)])
        own = zip(self.sources, starts.tolist(), strict=False)
        return np.concatenate([places[place] + start for (place, _), start in own])

    def restrict(self, outputs: IndexArray | None, places: Sequence[IndexArray | None]) -> Stage:
        """The stage between the named outputs and the named neurons of every place it reads (None = all)."""
        return Stage(tuple((j, layer.restrict(outputs, places[j])) for j, layer in self.sources), self.relu)


class _SideBySide(AffineMap):
    """[W_1 … W_k] and the first map's bias, for maps of which some have no matrix."""

    def __init__(self, maps: Sequence[AffineMap]) -> None:
        self.maps = tuple(maps)
        self.input_size, self.output_size = sum(layer.input_size for layer in maps), maps[0].output_size

    @property
    def bias_vector(self) -> Array:
        return self.maps[0].bias_vector

    def linear(self, x: Array) -> Array:
        starts = np.cumsum([layer.input_size for layer in self.maps])
        parts = zip(self.maps, np.split(x, starts[:-1], axis=-1), strict=True)
        return sum(layer.linear(part) for layer, part in parts)

    def adjoint(self, nu: Array) -> Array:
        return np.concatenate([layer.adjoint(nu) for layer in self.maps], axis=-1)

    def to_sparse(self) -> SparseMatrix:
        return sp.hstack([layer.to_sparse() for layer in self.maps], format="csr")

    @cached_property
    def column_norms(self) -> tuple[FloatArray, int]:
        norms, most = zip(*(layer.column_norms for layer in self.maps), strict=True)
        return np.concatenate(norms), max(most)

    @property
    def row_entries(self) -> int:
        return sum(layer.row_entries for layer in self.maps)

    def row_peaks(self) -> FloatArray:
        return np.asarray(np.max([layer.row_peaks() for layer in self.maps], axis=0))


@dataclass(frozen=True, eq=False)
class ColumnStage:
    """A stage for iterative methods, whose points and rows are columns: scipy's sparse products want them contiguous.

    sources: (j, W, Wᵀ), both laid out once, numpy or scipy.sparse. bias: (n, 1), or None for a linear map's gradient.
    """

    sources: tuple[tuple[int, Any, Any], ...]
    bias: FloatArray | None
    relu: bool = True

    @classmethod
    def of(cls, stage: Stage) -> Self:
        """The stage's own numbers: plain arrays of a Dense map, scipy.sparse ones of any other."""
        weights = ((place, plain_weight(layer)) for place, layer in stage.sources)
        both = ((place, weight, weight.T.tocsr() if sp.issparse(weight) else weight.T) for place, weight in weights)
        return cls(tuple(both), stage.bias[:, None], stage.relu)

    def forward(self, outputs: Sequence[FloatArray]) -> FloatArray:
        """x̂ from the outputs of all places before, an array of its own. Shapes: (n_j, K) each → (n, K)."""
        place, weight, _ = self.sources[0]
        total: FloatArray = weight @ outputs[place]
        for place, weight, _ in self.sources[1:]:
            total += weight @ outputs[place]
        if self.bias is not None:
            total += self.bias
        return total

    def adjoint(self, multipliers: FloatArray) -> list[tuple[int, FloatArray]]:
        """(j, W_kjᵀλ) for every source, arrays of their own; λ (n, K)."""
        return [(place, transposed @ multipliers) for place, _, transposed in self.sources]

    def constant(self, multipliers: FloatArray) -> FloatArray | float:
        """b·λ, shape (K,)."""
        return 0.0 if self.bias is None else self.bias[:, 0] @ multipliers

    def homogeneous(self) -> Self:
        """The same without its bias: what a gradient sees."""
        return replace(self, bias=None)


def plain_weight(layer: AffineMap) -> Any:
    """W as a numpy array for a Dense map, as scipy.sparse for any other, or an KernelOperator without a matrix."""
    return layer.weight if isinstance(layer, Dense) else layer.operand()


def hidden_stages(layers: Iterable[AffineMap]) -> tuple[Stage, ...]:
    """The stages of a chain of maps with a ReLU behind each."""
    return tuple(Stage(((k, layer),)) for k, layer in enumerate(layers))


def sequential(layers: Sequence[AffineMap]) -> tuple[Stage, ...]:
    """The stages of a chain of maps with a ReLU between two of them: a sequential network, the logits linear."""
    return tuple(Stage(((k, layer),), k < len(layers) - 1) for k, layer in enumerate(layers))


def place_sizes(stages: Sequence[Stage], inputs: int) -> tuple[int, ...]:
    """Number of values at every place, the input first.

    Raises ValueError for a stage that reads a place not there yet, of another size or twice, and for maps of one stage
    that give different numbers of outputs. A stage that no later one reads is allowed: cuts leave such.
    """
    sizes = [inputs]
    for k, stage in enumerate(stages):
        if len({place for place, _ in stage.sources}) < max(1, len(stage.sources)):
            raise ValueError(f"stage {k} must read at least one place, each once, got {[j for j, _ in stage.sources]}")
        for place, layer in stage.sources:
            if not 0 <= place <= k:
                raise ValueError(f"stage {k} may read places 0 … {k}, got {place}")
            if layer.input_size != sizes[place]:
                giver = f"layer {place - 1}" if place else "the input"
                raise ValueError(f"{giver} gives {sizes[place]} features, layer {k} takes {layer.input_size}")
            if layer.output_size != stage.output_size:
                raise ValueError(f"stage {k} sums maps to {stage.output_size} and {layer.output_size} values")
        sizes.append(stage.output_size)
    return tuple(sizes)
