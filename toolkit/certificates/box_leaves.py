"""The leaves of a tree over the input box: certified bounds of a row on many boxes at once, from the boxes alone.

Claim: row·F(x) ≥ the bound of every box, for all x of the input set in that box. Layer after layer l,u on every box are
the best of the region's own, the dual's (α = s, both sides in one walk) and CROWN's (α ∈ {0, 1}); then the row takes
the better of both:

    ν ← λW,   λ = max(ν,0)·α + min(ν,0)·s,   value += Σ min(ν,0)·h,   h = max((1 − s)u, −s·l),

with s = α = 1 at active, 0 at inactive neurons, h = 0 at both; and Σ max(ν,0)·lower + min(ν,0)·upper at the input.

Proof. By dual_bound.py with λ ∈ [0, ν] or [ν, 0]: for ν ≥ 0 both corners are ≥ 0, for ν < 0 they are ν(1 − s)u and
−νs·l ≥ ν·h. ∎ Boxes lie in the hull of the set, so the region's sizes r bound all values there, and its error terms all
roundings (rounding.py): |λ| ≤ |ν|, and a ReLU's own are at most a few u·|ν|·r, as for the dual rung.

Source: Wong & Kolter 2018, Theorem 1; Zhang et al. 2018, §3.3. Checked: tests hold the bounds against rational minima.
Trusted: l,u of the region; relu.py's walk and chord, rounding.py.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from toolkit.arrays import FloatArray, IndexArray
from toolkit.certificates.rounding import ErrorModel, Ledger, outward
from toolkit.networks.stages import Stage
from toolkit.problems.phases import is_unstable
from toolkit.relaxations.relu import adaptive_slope, chord, walk

BOX_ROWS = 1 << 20  # numbers in the rows of all boxes of one batch, in the widest place


def box_leaf_bounds(model: ErrorModel, row: FloatArray, lower: FloatArray, upper: FloatArray) -> FloatArray:
    """Certified lower bounds of row·F where the region meets the boxes, shape (B,); row (outputs,), ends (B, n).

    The boxes lie in the hull of the model's input set; −inf where numbers overflow.
    """
    neurons = max((low.size for low in model.lower), default=1)
    step = max(1, BOX_ROWS // (max(1, neurons) * max(neurons, model.input_set.size, row.size)))
    parts = (slice(start, start + step) for start in range(0, len(lower), step))
    found = [_Boxes(model, lower[part], upper[part]).row_bounds(row) for part in parts]
    return np.concatenate([np.zeros(0), *found])


class _Boxes:
    """Some boxes with s, α and h of every hidden stage, (B, n_k); nothing of linear stages is read."""

    def __init__(self, model: ErrorModel, lower: FloatArray, upper: FloatArray) -> None:
        self.model, self.lower, self.upper = model, lower, upper
        self.chord: list[FloatArray] = []
        self.crown: list[FloatArray] = []
        self.height: list[FloatArray] = []
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            for k, stage in enumerate(model.stages[:-1]):
                self._relax(*(self._ranges(k) if stage.relu else (model.lower[k][None], model.upper[k][None])))

    def _relax(self, low: FloatArray, high: FloatArray) -> None:
        """The next stage's relaxation on its l,u."""
        s = chord(low, high)
        unstable = is_unstable(low, high)
        self.chord.append(s)
        self.crown.append(np.where(unstable, adaptive_slope(low, high), s))
        self.height.append(np.where(unstable, np.maximum((1.0 - s) * high, -s * low), 0.0))

    def _ranges(self, k: int) -> tuple[FloatArray, FloatArray]:
        """l and u of stage k on every box: neurons that are unstable in the region, then those that still are."""
        boxes, head = len(self.lower), (*self.model.stages[:k], self.model.stages[k].linear())
        low, high = (np.tile(side[k], (boxes, 1)) for side in (self.model.lower, self.model.upper))
        for slopes in (self.chord, self.crown):
            box, neuron = np.nonzero(is_unstable(low, high))

            def unit(some: IndexArray, neuron: IndexArray = neuron) -> FloatArray:
                rows = np.zeros((some.size, self.model.lower[k].size))
                rows[np.arange(some.size), neuron[some]] = 1.0
                return rows

            below, above = self._both(head, unit, box, slopes)
            low[box, neuron] = np.maximum(low[box, neuron], below)
            high[box, neuron] = np.minimum(high[box, neuron], above)
        return low, np.maximum(low, high)  # l > u where the box does not meet the set: anything holds there

    def _both(
        self,
        head: tuple[Stage, ...],
        rows: Callable[[IndexArray], FloatArray],
        box: IndexArray,
        slopes: list[FloatArray],
    ) -> tuple[FloatArray, FloatArray]:
        """Both sides of the rows' functionals, a part of them at a time; box: which box each is about."""
        below, above = np.empty(box.size), np.empty(box.size)
        widest = max(self.model.input_set.size, *(stage.output_size for stage in head))
        step = max(1, BOX_ROWS // widest)
        for start in range(0, box.size, step):
            some = np.arange(start, min(start + step, box.size))
            own = rows(some)
            if slopes is self.chord:  # ν and −ν have the same λ
                below[some], above[some] = self._carried(head, own, box[some], slopes)
            else:
                below[some] = self._carried(head, own, box[some], slopes)[0]
                above[some] = -self._carried(head, -own, box[some], slopes)[0]
        return below, above

    def _carried(
        self, head: tuple[Stage, ...], rows: FloatArray, box: IndexArray, slopes: list[FloatArray]
    ) -> tuple[FloatArray, FloatArray]:
        """Certified lower bounds of the rows' functionals of the last stage, and with α = s upper ones."""
        ledger, step = Ledger(self.model, len(rows)), _BoxStep(self, box, slopes)
        nu, value = walk(head, {len(head): rows}, step, 0.0, ledger)
        ledger.terms(0, nu)
        positive = np.maximum(nu, 0.0)
        negative, lower, upper = nu - positive, self.lower[box], self.upper[box]
        least = _sums(positive, lower) + _sums(negative, upper) + step.below
        most = _sums(positive, upper) + _sums(negative, lower) + step.above
        return outward(value + least, ledger.error), -outward(-(value + most), ledger.error)

    def row_bounds(self, row: FloatArray) -> FloatArray:
        """The better of both closed forms for the row on every box."""
        every = np.arange(len(self.lower))
        rows = np.tile(row, (every.size, 1))
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            found = [self._carried(self.model.stages, rows, every, slopes)[0] for slopes in (self.chord, self.crown)]
        return np.maximum(*found)


class _BoxStep:
    """λ of every row by its own box's relaxation; below and above: what the ReLUs add to either side."""

    shrinks = True  # every slope is in [0, 1]

    def __init__(self, boxes: _Boxes, box: IndexArray, slopes: list[FloatArray]) -> None:
        self.boxes, self.box, self.slopes = boxes, box, slopes
        self.below: FloatArray = np.zeros(box.size)
        self.above: FloatArray = np.zeros(box.size)

    def relu(self, k: int, nu: FloatArray) -> FloatArray:
        positive = np.maximum(nu, 0.0)
        negative, height = nu - positive, self.boxes.height[k][self.box]
        self.below = self.below + _sums(negative, height)
        self.above = self.above + _sums(positive, height)
        return np.asarray(positive * self.slopes[k][self.box] + negative * self.boxes.chord[k][self.box])


def _sums(one: FloatArray, other: FloatArray) -> FloatArray:
    """Σ_j one_ij·other_ij of every row."""
    return np.asarray(np.einsum("ij,ij->i", one, other), dtype=np.float64)
