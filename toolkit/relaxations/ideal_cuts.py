"""Cutting planes of a single ReLU neuron's ideal formulation: past the convex barrier of the triangle.

For an unstable neuron y = max(w·v + b, 0) with inputs v in a box, indicator a and any subset I of the inputs:

    y ≤ Σ_{j∈I} w_j (v_j − L̆_j (1 − a)) + (b + Σ_{j∉I} w_j Ŭ_j) a,

L̆_j and Ŭ_j being the box ends that minimise and maximise w_j v_j. With y ≥ 0, y ≥ w·v + b and 0 ≤ a ≤ 1 these describe
the convex hull exactly; I = all inputs and I = ∅ are at least as tight as the template's own rows. The most violated I
takes each j where its first term is the smaller, so it is found in time linear in the number of weights.

Source: Anderson et al. 2020, "Strong mixed-integer programming formulations for trained neural networks", Prop. 12;
Tjandraatmadja et al. 2020, "The convex relaxation barrier, revisited". Checked: nothing needs to be, every I is valid.
Trusted: l,u of earlier layers, float64 products.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from toolkit.arrays import FloatArray
from toolkit.problems.input_set import InputSet
from toolkit.relaxations.layout import TemplateLayout


class CutFinder:
    """Finds the most violated cut of every unstable neuron at a point of the relaxation.

    A neuron's inputs v are the template's own variables (x̃ and the unstable y of earlier layers): active neurons in
    between are linear and already substituted, which leaves fewer and freer inputs than the previous layer's box.
    """

    def __init__(self, layout: TemplateLayout, ball: InputSet) -> None:
        self.layout = layout
        blocks = [layout.pre_activations(k) for k in range(len(layout.unstable))]
        empty = np.zeros((0, layout.inputs + layout.count))
        self._weight = sp.csr_array(np.vstack([empty, *(matrix for matrix, _ in blocks)]))
        self._bias = np.concatenate([np.zeros(0), *(constant for _, constant in blocks)])
        self._range = layout.upper - layout.lower
        lower = np.concatenate([ball.lower, np.zeros(layout.count)])
        upper = np.concatenate([ball.upper, layout.upper])
        entry, column = self._weight.data, self._weight.indices
        self._row = np.repeat(np.arange(layout.count), np.diff(self._weight.indptr))
        self._low = np.minimum(entry * lower[column], entry * upper[column])
        self._high = np.maximum(entry * lower[column], entry * upper[column])

    def violated(self, z: FloatArray, tolerance: float) -> tuple[Any, FloatArray]:
        """Cuts rows·z ≤ upper that z violates by more than `tolerance` of the neuron's range, at most one per neuron.

        z: a point of the template, shape (columns,). Returns CSR (k, columns) and (k,).
        """
        count, inputs = self.layout.count, self.layout.inputs
        y, a = z[self.layout.block("y")], z[self.layout.block("a")]
        inside = self._weight.data * z[self._weight.indices] - self._low * (1.0 - a)[self._row]
        outside = self._high * a[self._row]
        least = np.bincount(self._row, np.minimum(inside, outside), minlength=count)
        found = np.flatnonzero(y - least - self._bias * a > tolerance * self._range)
        taken = inside < outside
        fixed: FloatArray = np.bincount(self._row, np.where(taken, self._low, 0.0), minlength=count).astype(np.float64)
        free = np.bincount(self._row, np.where(taken, 0.0, self._high), minlength=count)
        place = np.full(count, -1)
        place[found] = np.arange(found.size)
        chosen = np.flatnonzero(taken & (place[self._row] >= 0))
        own = place[self._row[chosen]]  # ascending, so a row's entries are its subset, then y, then a
        ends = np.concatenate([[0], np.cumsum(np.bincount(own, minlength=found.size) + 2)])
        data, columns = np.empty(ends[-1]), np.empty(ends[-1], dtype=np.int32)
        spot = np.arange(chosen.size) + 2 * own
        data[spot], columns[spot] = -self._weight.data[chosen], self._weight.indices[chosen]
        data[ends[1:] - 2], columns[ends[1:] - 2] = 1.0, inputs + found
        data[ends[1:] - 1], columns[ends[1:] - 1] = -(fixed + free + self._bias)[found], inputs + 2 * count + found
        rows = sp.csr_array((data, columns, ends), shape=(found.size, self.layout.columns))
        return rows, -fixed[found]
