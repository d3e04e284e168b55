"""l,u of every layer over many boxes of inputs at once, by zonotopes whose rounding is carried along.

Over one box every x̂ and y is held by an affine form with symbols ε ∈ [−1,1] and an interval for what rounding did:

    |y_i(x̃) − c_i − Σ_g G_ig ε_g(x̃)| ≤ e_i     for every x̃ of the box, with one ε(x̃) for all neurons of all layers.

Input: c the middle, one symbol per coordinate that is split. Affine: c ← Wc + b, G ← WG and, with γ of all roundings of
a sum and |c| + Σ_g|G_g| its terms, e ← |W|(e + γ(|c| + Σ|G|)) + γ|b| + what W and b are off. ReLU with l ≤ x̂ ≤ u:
max(x̂,0) − s·x̂ lies in [0, h], h = max(−s·l, (1−s)u), for any float s in [0,1]: c ← s·c + h/2, G ← s·G and a new
symbol of size h/2. Then l,u = c ∓ (Σ|G| + e), outward, cut by the whole region's.

In real arithmetic this is the dual bound with α = s of every neuron, both sides (Wong & Kolter 2018, Thm 1), forwards
(Singh et al. 2018, "Fast and effective robustness certification"): one pass gives all layers, where walks back take one
per layer. Shapes: boxes are columns, (n, B); G is (n, B, symbols), so that a product is one BLAS call.

Certified: yes, in real arithmetic, where the region's own l,u hold; what overflows or is no number leaves these.
Trusted: IEEE 754 binary64, and products that only add products of entries.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from toolkit.arrays import BoolArray, FloatArray, IndexArray
from toolkit.certificates.rounding import OPERATIONS, gamma
from toolkit.networks.float_error import SAFETY, UNIT
from toolkit.networks.kernel_operators import KernelOperator
from toolkit.networks.layers import AffineMap, Dense
from toolkit.networks.stages import ColumnStage, Stage
from toolkit.problems.phases import is_unstable
from toolkit.problems.reduced import alive_part
from toolkit.problems.region import Region
from toolkit.relaxations.relu import adaptive_slope, chord

UNDERFLOW = 2.0**-900  # absolute error of what underflows, with much room
GENERATOR_ENTRIES = 1 << 24  # numbers in the G of one layer, all boxes
SPARSE_BELOW = 0.04  # share of entries that are not 0: where a sparse product overtakes BLAS
POINT = 2.0**-40  # of a coordinate's size: a width below is an interval's, not a symbol's


@dataclass(frozen=True, eq=False)
class StageMap:
    """x̂ = b + Σ W y⁽ʲ⁾ for forms: sources (j, W, |W|), b and its size (n, 1), γ of its sums, what W and b are off."""

    sources: tuple[tuple[int, Any, Any], ...]
    bias: FloatArray
    gamma: float
    made: float


@dataclass(frozen=True, eq=False)
class BoxMaps:
    """A region's alive network for boxes inside it. stages, columns: for forms and for walks; lower, upper: l and u of
    the region per layer, (n, 1); free: coordinates that boxes may differ in."""

    stages: tuple[StageMap, ...]
    columns: tuple[ColumnStage, ...]
    lower: tuple[FloatArray, ...]
    upper: tuple[FloatArray, ...]
    free: IndexArray


def box_maps(region: Region) -> BoxMaps:
    """What forms need of a region. Raises ValueError for convolutions that have no matrix."""
    alive, box = region.derive(alive_part), region.input_set
    sizes = [np.maximum(np.abs(box.lower), np.abs(box.upper))]
    sizes += [np.maximum(high, -low) for low, high in zip(alive.lower, alive.upper, strict=True)]
    stages = tuple(_stage_map(stage, sizes) for stage in alive.stages)
    columns = tuple(map(_column_stage, stages))
    lower, upper = (tuple(side[:, None] for side in sides) for sides in (alive.lower, alive.upper))
    return BoxMaps(stages, columns, lower, upper, free_inputs(box.lower, box.upper))


def free_inputs(lower: FloatArray, upper: FloatArray) -> IndexArray:
    """The coordinates of a box that are no points: wider than POINT of their size. In halves, since u − l may
    overflow."""
    size = np.maximum(np.abs(lower), np.abs(upper))
    return np.flatnonzero(0.5 * upper - 0.5 * lower > 0.5 * POINT * size)


def _stage_map(stage: Stage, sizes: list[FloatArray]) -> StageMap:
    sources, made, terms = [], 0.0, OPERATIONS
    for place, layer in stage.sources:
        operand = _matrix(layer)
        if layer.column_error is not None:
            made += SAFETY * float(layer.column_error @ sizes[place])
        made += SAFETY * layer.bias_error
        terms += layer.row_entries + 2
        sources.append((place, operand, abs(operand)))
    return StageMap(tuple(sources), np.asarray(stage.bias, dtype=np.float64)[:, None], gamma(terms), made)


def _column_stage(stage: StageMap) -> ColumnStage:
    sources = [
        (place, weight, weight.T.tocsr() if sp.issparse(weight) else weight.T) for place, weight, _ in stage.sources
    ]
    return ColumnStage(tuple(sources), stage.bias)


def _matrix(layer: AffineMap) -> Any:
    """W as a numpy array, or as scipy.sparse where few of its entries are not 0."""
    operand = layer.weight if isinstance(layer, Dense) else layer.operand()
    if isinstance(operand, KernelOperator):
        raise ValueError(f"boxes need the matrix of every map, got a convolution of shape {operand.shape}")
    if isinstance(operand, np.ndarray):
        return sp.csr_array(operand) if np.count_nonzero(operand) < SPARSE_BELOW * operand.size else operand
    return operand if operand.nnz < SPARSE_BELOW * math.prod(operand.shape) else operand.toarray()


class BoxRanges:
    """l,u of every hidden stage in B boxes, and what a triangle's dual reads, per stage (n, B).

    lower, upper: l, u. chord: s (1: active, 0: inactive). height: −s·l of unstable neurons, else 0. floor: CROWN's
    slope of unstable neurons, else s. shares: (n, B, f), how |x̂ − c| is divided among the inputs that are free, or
    None where nobody asked. symbols: columns of the largest G.
    """

    def __init__(self) -> None:
        self.lower: list[FloatArray] = []
        self.upper: list[FloatArray] = []
        self.chord: list[FloatArray] = []
        self.height: list[FloatArray] = []
        self.floor: list[FloatArray] = []
        self.shares: list[FloatArray] = []
        self.symbols = 0

    def __len__(self) -> int:
        return len(self.lower)

    def append(self, lower: FloatArray, upper: FloatArray) -> BoolArray:
        """One more stage; returns which neurons are unstable."""
        unstable = np.asarray(is_unstable(lower, upper))
        s = chord(lower, upper)
        self.lower.append(lower)
        self.upper.append(upper)
        self.chord.append(s)
        self.height.append(np.where(unstable, -s * lower, 0.0))
        self.floor.append(np.where(unstable, adaptive_slope(lower, upper), s))
        return unstable

    def replace(self, k: int, lower: FloatArray, upper: FloatArray) -> None:
        """Other l,u of stage k."""
        only = BoxRanges()
        only.append(lower, upper)
        for name in ("lower", "upper", "chord", "height", "floor"):
            getattr(self, name)[k] = getattr(only, name)[0]

    def take(self, boxes: IndexArray, stages: int | None = None) -> BoxRanges:
        """The same of these boxes, in this order, of the first stages (None: all), without shares."""
        found = BoxRanges()
        for name in ("lower", "upper", "chord", "height", "floor"):
            setattr(found, name, [side[:, boxes] for side in getattr(self, name)[:stages]])
        return found

    def unstable(self, k: int) -> BoolArray:
        """Mask of stage k's neurons with l < 0 < u."""
        return np.asarray(is_unstable(self.lower[k], self.upper[k]))


@dataclass(frozen=True, eq=False)
class _Forms:
    """Affine forms of one place in every box: c and e (n, B), G (n, B, g), None at the input, and |c| + Σ|G| (n, B)."""

    centre: FloatArray
    generators: FloatArray | None
    error: FloatArray
    size: FloatArray


def box_ranges(maps: BoxMaps, lower: FloatArray, upper: FloatArray, shares: bool = False) -> BoxRanges:
    """l,u of every hidden stage over every box. lower, upper: (n, B), inside the region's hull, differing from it in
    free coordinates only. shares: whether to keep those as well."""
    with np.errstate(over="ignore", invalid="ignore", under="ignore", divide="ignore"):
        found = BoxRanges()
        first, reach = _input_forms(maps, lower, upper)
        forms = [first]
        for k, stage in enumerate(maps.stages):
            hat = _affine(stage, forms, maps.free, reach)
            low, high, radius = _concretised(hat, maps.lower[k], maps.upper[k])
            unstable = found.append(low, high)
            if shares:
                own = np.abs(hat.generators[:, :, : maps.free.size])  # type: ignore[index]
                found.shares.append(own / np.maximum(own.sum(axis=2), UNDERFLOW)[:, :, None])
            if k + 1 < len(maps.stages):
                forms.append(_rectified(hat, radius, found, unstable))
        return found


def _input_forms(maps: BoxMaps, lower: FloatArray, upper: FloatArray) -> tuple[_Forms, FloatArray]:
    """The forms of the input, and the sizes of its symbols, (B, f)."""
    middle = 0.5 * lower + 0.5 * upper
    half = np.maximum(upper - middle, middle - lower) * (1.0 + 4.0 * UNIT) + UNDERFLOW
    reach = np.ascontiguousarray(half[maps.free].T)
    error = half.copy()
    error[maps.free] = 0.0
    return _Forms(middle, None, error, np.abs(middle) + half), reach


def _affine(stage: StageMap, forms: list[_Forms], free: IndexArray, reach: FloatArray) -> _Forms:
    """The forms of x̂; `size` is left to `_concretised`."""
    boxes = reach.shape[0]
    centre = np.repeat(stage.bias, boxes, axis=1)
    error = stage.gamma * np.abs(centre) + (stage.made + UNDERFLOW)
    total: FloatArray | None = None
    # the place with most symbols first: those of an earlier place are the first of every later one's
    for place, weight, size in sorted(stage.sources, key=lambda source: -source[0]):
        form = forms[place]
        centre += weight @ form.centre
        error += size @ (form.error + stage.gamma * form.size)
        if form.generators is None:
            columns = weight[:, free]
            columns = columns.toarray() if sp.issparse(columns) else columns
            part = columns[:, None, :] * reach[None]
        else:
            inner, _, symbols = form.generators.shape
            part = (weight @ form.generators.reshape(inner, boxes * symbols)).reshape(weight.shape[0], boxes, symbols)
        if total is None:
            total = part
        else:
            total[:, :, : part.shape[2]] += part
    return _Forms(centre, total, error * SAFETY, centre)


def _concretised(form: _Forms, lowest: FloatArray, highest: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """l, u and Σ|G| of x̂; the region's l,u where these are no numbers or cross them."""
    assert form.generators is not None
    symbols = form.generators.shape[2]
    radius = np.abs(form.generators).sum(axis=2)
    reach = radius + ((symbols + 8) * UNIT * (np.abs(form.centre) + radius) + form.error * SAFETY)
    low, high = np.fmax(form.centre - reach, lowest), np.fmin(form.centre + reach, highest)
    wrong = low > high
    if wrong.any():
        low, high = np.where(wrong, lowest, low), np.where(wrong, highest, high)
    return low, high, radius


def _rectified(hat: _Forms, radius: FloatArray, ranges: BoxRanges, unstable: BoolArray) -> _Forms:
    """The forms of y = max(x̂, 0), by the last l,u of `ranges`."""
    assert hat.generators is not None
    low, high, s = ranges.lower[-1], ranges.upper[-1], ranges.chord[-1]
    height = np.where(unstable, np.maximum(-s * low, (1.0 - s) * high) * (1.0 + 8.0 * UNIT), 0.0)
    count, boxes, known = hat.generators.shape
    # a symbol has one column in all places: branches side by side must not share one
    first = max(known, ranges.symbols)
    own = _symbols(unstable, height, GENERATOR_ENTRIES // max(1, count * boxes) - first)
    ranges.symbols = first + int(own.sum(axis=0).max(initial=0))
    generators = np.zeros((count, boxes, ranges.symbols))
    np.multiply(hat.generators, s[:, :, None], out=generators[:, :, :known])
    neuron, box = np.nonzero(own)
    generators[neuron, box, first - 1 + np.cumsum(own, axis=0)[neuron, box]] = 0.5 * height[neuron, box]
    size = np.abs(hat.centre) + radius
    centre = s * hat.centre + 0.5 * height
    error = (s * hat.error + 4.0 * UNIT * (size + height) + np.where(own, UNDERFLOW, UNDERFLOW + 0.5 * height)) * SAFETY
    return _Forms(centre, generators, error, np.abs(centre) + s * radius + 0.5 * height)


def _symbols(unstable: BoolArray, height: FloatArray, most: int) -> BoolArray:
    """Which unstable neurons get a symbol of their own: in every box those of largest h, at most so many; what the
    others add goes into e."""
    if int(unstable.sum(axis=0).max(initial=0)) <= most:
        return unstable
    if most <= 0:
        return np.zeros_like(unstable)
    least = -np.partition(-height, most - 1, axis=0)[most - 1]
    return np.asarray(unstable & (height > least))  # those at the limit may be many
