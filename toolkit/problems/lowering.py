"""Any linear question as one row per group about a network's own outputs: what rungs are asked.

    constants   c·F + d = (c, d)·(F, 1): one more output, which is 1;
    inputs      rows about x̃ itself: more outputs, which copy the inputs;
    groups      max_{j∈g} (c_j·F + d_j) by ReLUs: max(p, q) = p + max(q − p, 0), rows in pairs, winners in pairs again.

Every rung, certificate, proof and replay then bounds a group's margin as it bounds a row, and no rung knows of groups:
on the rows of one group the triangle relaxation of these ReLUs is the LP with t ≥ c_j·F + d_j, the slopes of their dual
are weights on the simplex of the group's rows, and branching on them asks which row is the largest.

Checked: shapes. What products and differences of weights round is charged to the maps (weight_error.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from toolkit.arrays import FloatArray, IndexArray
from toolkit.networks.layers import AffineMap, Dense, Sparse
from toolkit.networks.merging import merge
from toolkit.networks.network import Network
from toolkit.networks.stages import Stage
from toolkit.networks.weight_error import column_norms, sum_error
from toolkit.networks.weights import dense_array
from toolkit.problems.properties import Objective, Property

RANKED = "dropped_outputs"  # in metadata: how many outputs, the first, the operator left out is about; all by default
Source = tuple[int, AffineMap]


def lowered(network: Network, question: Property) -> tuple[Network, Property]:
    """A network and the same question about it with one row per group and no constants; as given, if they are so.

    Raises ValueError for a network that was read without its last operator, which keeps no more than the order of the
    outputs, and a row that asks for more than that.
    """
    check_ranking(network, question)
    network, objective = without_constants(network, question.objective)
    if question.count < len(objective):
        network, objective = _without_groups(network, objective, question)
    if objective is question.objective:
        return network, question
    return network, Property(objective, np.arange(question.count), question.label)


def check_ranking(network: Network, question: Property) -> None:
    """Raise ValueError unless every row is c·(F_i − F_j), if all that the network says right is its outputs' order.

    Rows about none of these outputs may be any, since outputs that copy the inputs are right by themselves.
    """
    if not (dropped := network.metadata.get("dropped")):
        return
    rows, constants = dense_array(question.objective.rows), question.objective.constants
    count = network.metadata.get(RANKED, network.output_size)
    ranked, others = rows[:, :count], (rows[:, count:] != 0).any(axis=1)
    entries = (ranked != 0).sum(axis=1)
    pairs = (entries == 2) & (ranked.min(axis=1) == -ranked.max(axis=1)) & ~others
    wrong = np.flatnonzero((entries > 0) & (~pairs if constants is None else ~pairs | (constants != 0)))
    if wrong.size:
        raise ValueError(
            f"the network was read without {dropped}: it answers rows c·(F_i − F_j) and rows about inputs alone, and "
            f"row {wrong[0]} is neither"
        )


def without_constants(network: Network, objective: Objective) -> tuple[Network, Objective]:
    """The same rows with d as the coefficients of one more output, which is 1; both as they are if d = 0."""
    if objective.constants is None:
        return network, objective
    own = np.column_stack([dense_array(objective.rows), objective.constants])
    return with_constant_output(network), Objective(own, None, objective.targets)


def with_constant_output(network: Network) -> Network:
    """The network with one more output, after its own, that is 1 everywhere; its ReLU inputs are the same."""
    return with_outputs(network, [], np.ones(1))


def with_input_outputs(network: Network, copies: int = 1) -> Network:
    """The network with more outputs, after its own, that are its inputs, so many times; its ReLU inputs are its own."""
    size = copies * network.input_size
    inputs = sp.vstack([sp.eye_array(network.input_size, format="csr")] * copies, format="csr")
    more = with_outputs(network, [(0, inputs)], np.zeros(size))
    if "dropped" not in network.metadata:
        return more
    own = {RANKED: network.metadata.get(RANKED, network.output_size)}
    return Network(more.stages, more.name, {**more.metadata, **own}, more.input_shape)


def with_copies(network: Network, copies: int) -> Network:
    """The network whose outputs are its own so many times, one after the other; its ReLU inputs are the same."""
    if copies == 1:
        return network
    last = Stage(tuple((place, _repeated(layer, copies)) for place, layer in network.stages[-1].sources), False)
    return Network((*network.stages[:-1], last), network.name, network.metadata, network.input_shape)


def _repeated(layer: AffineMap, copies: int) -> AffineMap:
    """The map whose outputs are its own so many times; norms of its errors are at most as many times as large."""
    bias = np.tile(layer.bias_vector, copies)
    more: AffineMap
    if isinstance(layer, Dense):
        more = Dense(np.tile(layer.weight, (copies, 1)), bias)
    else:
        more = Sparse(sp.vstack([layer.to_sparse()] * copies, format="csr"), bias)
    error = None if layer.column_error is None else copies * layer.column_error
    return more.with_error(error, copies * layer.bias_error)


def with_outputs(network: Network, sources: Sequence[tuple[int, Any]], constants: FloatArray) -> Network:
    """The network with the outputs Σ_j W_j·y⁽ʲ⁾ + constants after its own. sources: (j, W_j), scipy.sparse, j once."""
    more = dict(sources)
    last = network.stages[-1].sources
    nothing = np.zeros_like(constants)
    grown = [
        (place, _stacked(layer, more.pop(place, None), nothing if k else constants))
        for k, (place, layer) in enumerate(last)
    ]
    above = network.output_size
    for place, weight in more.items():
        matrix = sp.vstack([sp.csr_array((above, weight.shape[1])), weight], format="csr")
        grown.append((place, Sparse(matrix, np.zeros(matrix.shape[0]))))
    stages = (*network.stages[:-1], Stage(tuple(grown), False))
    return Network(stages, network.name, network.metadata, network.input_shape)


def _stacked(layer: AffineMap, below: Any, constants: FloatArray) -> AffineMap:
    """The map with more outputs: below·y + constants; its errors are those of its own."""
    bias = np.append(layer.bias_vector, constants)
    more: AffineMap
    if isinstance(layer, Dense):
        under = np.zeros((constants.size, layer.input_size)) if below is None else below.toarray()
        more = Dense(np.vstack([layer.weight, under]), bias)
    else:
        under = sp.csr_array((constants.size, layer.input_size)) if below is None else below
        more = Sparse(sp.vstack([layer.to_sparse(), under], format="csr"), bias)
    return more.with_error(layer.column_error, layer.bias_error)


@dataclass(frozen=True)
class _Largest:
    """c_row·F + Σ z over ReLU outputs z, each a (place, index): the largest of some rows of a group."""

    row: int
    relus: tuple[tuple[int, int], ...] = ()


def _without_groups(network: Network, objective: Objective, question: Property) -> tuple[Network, Objective]:
    """The network with the ReLUs that pick each group's largest row, and one row per group about it."""
    rows, scale = _in_unit(dense_array(objective.rows), question.groups)
    last, hidden = network.stages[-1], list(network.stages[:-1])
    groups = [[_Largest(i) for i in np.flatnonzero(question.groups == g).tolist()] for g in range(question.count)]
    sizes = {0: network.input_size} | {k + 1: stage.output_size for k, stage in enumerate(hidden)}
    while any(len(own) > 1 for own in groups):
        place, pairs = len(hidden) + 1, []
        for own in groups:
            for first in range(0, len(own) - 1, 2):
                pairs.append((own[first], own[first + 1]))
                own[first] = _Largest(own[first].row, (*own[first].relus, (place, len(pairs) - 1)))
            del own[1::2]
        hidden.append(_differences(rows, last, pairs, sizes))
        sizes[place] = len(pairs)
    grown = [own[0] for own in groups]
    parts = _selections([one.relus for one in grown], [()] * len(grown), sizes)
    whole = Network((*hidden, last), network.name, network.metadata, network.input_shape)
    whole = with_outputs(whole, list(parts.items()), np.zeros(len(grown)))
    targets = tuple(objective.targets[one.row] if not one.relus else None for one in grown)
    firsts = [one.row for one in grown]
    own_rows = np.hstack([rows[firsts], np.eye(len(grown))]) * scale[firsts, None]
    return whole, Objective(own_rows, None, targets)


def _in_unit(rows: FloatArray, groups: IndexArray) -> tuple[FloatArray, FloatArray]:
    """Rows, and the power of two by which each is to be multiplied again: of the row of a group whose coefficients are
    the smallest the largest is 1 … 2, so that the ReLUs that pick its largest row are not charged for the outputs'
    rounding where all are small, or large; 1 where that would round."""
    scale = np.ones(len(rows))
    for group in np.unique(groups).tolist():
        own = groups == group
        peaks = np.abs(rows[own]).max(axis=1, initial=0.0)
        exponent = int(np.frexp(peaks[peaks > 0].min(initial=np.inf))[1]) - 1 if peaks.any() else 0
        unit = np.ldexp(rows[own], -exponent)
        if -1022 <= exponent <= 1023 and np.array_equal(np.ldexp(unit, exponent), rows[own]):
            scale[own] = np.ldexp(1.0, exponent)
    return rows / scale[:, None], scale


def _differences(
    rows: FloatArray, last: Stage, pairs: Sequence[tuple[_Largest, _Largest]], sizes: dict[int, int]
) -> Stage:
    """The stage whose x̂ is the second of every pair less the first."""
    first, second = (rows[[pair[k].row for pair in pairs]] for k in (0, 1))
    change, rounded = second - first, sum_error(second, -first)
    error = column_norms(rounded) if rounded.any() else None
    zero = np.zeros(len(pairs))
    sources: list[Source] = []
    for k, (place, layer) in enumerate(last.sources):
        taken: AffineMap = Dense(change, zero) if isinstance(layer, Dense) else Sparse(sp.csr_array(change), zero)
        sources.append((place, merge(layer, taken.with_error(error, 0.0) if error is not None else taken)))
        assert k == 0 or not np.any(sources[-1][1].bias_vector)
    chosen = _selections([pair[1].relus for pair in pairs], [pair[0].relus for pair in pairs], sizes)
    sources += [(place, Sparse(matrix, zero)) for place, matrix in chosen.items()]
    return Stage(tuple(sources))


def _selections(
    plus: Sequence[tuple[tuple[int, int], ...]], minus: Sequence[tuple[tuple[int, int], ...]], sizes: dict[int, int]
) -> dict[int, Any]:
    """Per place the matrix of the sums of `plus` less those of `minus`, one row per entry."""
    entries = [(r, place, i, 1.0) for r, own in enumerate(plus) for place, i in own]
    entries += [(r, place, i, -1.0) for r, own in enumerate(minus) for place, i in own]
    found = {}
    for place in sorted({place for _, place, _, _ in entries}):
        mine = [(r, i, sign) for r, at, i, sign in entries if at == place]
        row, column, data = (np.array(part) for part in zip(*mine, strict=True))
        found[place] = sp.csr_array((data, (row, column)), shape=(len(plus), sizes[place]))
    return found
