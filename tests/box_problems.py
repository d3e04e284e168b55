"""Small problems and sub-boxes of their input boxes, for bounds and searches over boxes."""

from __future__ import annotations

import numpy as np
from graphs import random_network

from toolkit.certificates.box_bounds import STEPS, BoxRows
from toolkit.certificates.box_ranges import BoxRanges, box_ranges
from toolkit.networks.network import Network
from toolkit.problems.input_sets import Box, LinfBall
from toolkit.problems.problem import Problem
from toolkit.problems.settings import Settings
from toolkit.verify.layer_bounds import layer_bounds

EXACT = Settings(mip_gap=0.0, mip_gap_abs=1e-6)


def problem_of(network: Network, ball: LinfBall | Box, rows: np.ndarray, settings: Settings = EXACT) -> Problem:
    return Problem.of(network, ball, rows, layer_bounds(network, ball), settings)


def graph_problem(seed: int, settings: Settings = EXACT, depth: int = 2) -> Problem:
    rng = np.random.default_rng(seed)
    network = random_network(rng, depth)
    rows = np.vstack([np.eye(network.output_size), -np.ones((1, network.output_size))])
    return problem_of(network, LinfBall(rng.normal(size=network.input_size), 0.7), rows, settings)


def parts(problem: Problem, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Random sub-boxes of the problem's box whose ends are floats, the whole one first."""
    box, rng = problem.input_set, np.random.default_rng(seed)
    ends = np.sort(rng.uniform(box.inner_lower, box.inner_upper, (2, count, box.size)), axis=0)
    ends[0, 0], ends[1, 0] = box.lower, box.upper
    return ends[0], ends[1]


def cubes(problem: Problem, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Random cubes in the problem's box: the oracle's balls have one radius."""
    box, rng = problem.input_set, np.random.default_rng(seed)
    middle = 0.5 * box.lower + 0.5 * box.upper
    reach = float((box.upper - middle).min())
    size = rng.uniform(0.0, 0.5, (count, 1)) * reach
    centre = middle + rng.uniform(-0.4, 0.4, (count, box.size)) * reach
    return centre - size, centre + size


def ranges_of(problem: Problem, lower: np.ndarray, upper: np.ndarray, finer: bool) -> BoxRanges:
    rows = BoxRows(problem)
    low, high = np.ascontiguousarray(lower.T), np.ascontiguousarray(upper.T)
    found = box_ranges(rows.maps, low, high)
    return rows.refined(low, high, found) if finer else found


def bounds_of(rows: BoxRows, lower: np.ndarray, upper: np.ndarray, row: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Certified bounds of a row over each box, (B, n); as a search, tries more where it is below `wanted`."""
    low, high = np.ascontiguousarray(lower.T), np.ascontiguousarray(upper.T)
    ranges = box_ranges(rows.maps, low, high)
    value = rows.columns(low, high, row, ranges).better().value
    for finer in (False, True):
        still = np.flatnonzero(~(value >= wanted))
        if not still.size:
            break
        own = (low[:, still], high[:, still])
        better = ranges.take(still)
        columns = rows.columns(*own, row[still], rows.refined(*own, better) if finer else better)
        value[still] = np.maximum(value[still], columns.ascended(columns.better(), STEPS).value)
    return value
