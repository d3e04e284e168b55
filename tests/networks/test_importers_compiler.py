"""Piecewise-linear functions as stages: what the stages give is what the function is, by its definition."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.networks.importers import tensors
from toolkit.networks.importers.compiler import StageCompiler, negative, scaled, shifted
from toolkit.networks.importers.evaluation import stage_outputs
from toolkit.networks.importers.tensors import AffineTensor
from toolkit.networks.layers import Dense

X = np.random.default_rng(0).uniform(-2, 2, (50, 6))
W = np.random.default_rng(1).normal(size=(6, 6))
SLOPE = np.array([0.1, 0.0, -0.5, 2.0, 1.0, 0.25])


def outputs(make: Callable[[StageCompiler, AffineTensor], AffineTensor]) -> np.ndarray:
    """What the stages give for z = Wx and the function made of it."""
    compiler = StageCompiler((6,))
    stages = compiler.stages(make(compiler, compiler.input.apply(Dense(W), (6,))))
    assert [stage.relu for stage in stages] == [True] * (len(stages) - 1) + [False]
    return stage_outputs(stages, X)


Z = X @ W.T
FUNCTIONS: dict[str, tuple[Callable[[StageCompiler, AffineTensor], AffineTensor], np.ndarray]] = {
    "relu": (lambda c, z: c.relu(z), np.maximum(Z, 0)),
    "relu twice": (lambda c, z: c.relu(c.relu(z)), np.maximum(Z, 0)),
    "leaky relu": (lambda c, z: c.leaky_relu(z, np.array(0.1)), np.where(Z > 0, Z, 0.1 * Z)),
    "leaky relu of several slopes": (lambda c, z: c.leaky_relu(z, SLOPE), np.where(Z > 0, Z, SLOPE * Z)),
    "leaky relu of slope 0": (lambda c, z: c.leaky_relu(z, np.array(0.0)), np.maximum(Z, 0)),
    "absolute": (lambda c, z: c.absolute(z), np.abs(Z)),
    "clip": (lambda c, z: c.clip(z, -0.5, 0.7), np.clip(Z, -0.5, 0.7)),
    "clip from 0": (lambda c, z: c.clip(z, 0.0, 6.0), np.clip(Z, 0, 6)),
    "clip from below": (lambda c, z: c.clip(z, 0.25, np.inf), np.maximum(Z, 0.25)),
    "clip from above": (lambda c, z: c.clip(z, -np.inf, 0.25), np.minimum(Z, 0.25)),
    "clip of nothing": (lambda c, z: c.clip(z, -np.inf, np.inf), Z),
    "clip far away": (lambda c, z: c.clip(z, -3.5e38, 3.5e38), Z),
    "clip far away on one side": (lambda c, z: c.clip(z, 0.25, 1e300), np.maximum(Z, 0.25)),
    "clip far away on the other": (lambda c, z: c.clip(z, -1e300, 0.25), np.minimum(Z, 0.25)),
    "clip from far above": (lambda c, z: c.clip(z, -np.inf, 1e39), Z),
    "clip to a point": (lambda c, z: c.clip(z, 0.5, 0.5), np.full_like(Z, 0.5)),
    "maximum with constants": (lambda c, z: c.maximum(z, SLOPE), np.maximum(Z, SLOPE)),
    "minimum with constants": (lambda c, z: c.minimum(z, SLOPE), np.minimum(Z, SLOPE)),
    "maximum": (lambda c, z: c.maximum(z, c.input), np.maximum(Z, X)),
    "minimum": (lambda c, z: c.minimum(z, negative(c.input)), np.minimum(Z, -X)),
    "sums": (lambda c, z: shifted(scaled(c.relu(z), SLOPE), SLOPE).plus(c.input), np.maximum(Z, 0) * SLOPE + SLOPE + X),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_stages_give_the_function(name: str) -> None:
    make, expected = FUNCTIONS[name]
    np.testing.assert_allclose(outputs(make), expected, rtol=0, atol=1e-14 * 64)


@given(seed=st.integers(0, 2**32 - 1), results=st.integers(1, 5), width=st.integers(1, 7))
@settings(max_examples=40)
def test_the_largest_of_any_groups(seed: int, results: int, width: int) -> None:
    """Windows that overlap, name an entry twice, or are cut by the border (−1)."""
    rng = np.random.default_rng(seed)
    groups = rng.integers(-1, 6, size=(results, width))
    groups[:, rng.integers(0, width)] = rng.integers(0, 6, size=results)
    found = outputs(lambda c, z: c.largest(z, groups, (results,)))
    expected = np.where(groups[None] >= 0, Z[:, groups], -np.inf).max(axis=2)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_a_tree_of_maxima_has_a_stage_a_level_and_shares_pairs() -> None:
    compiler = StageCompiler((1, 1, 8))
    windows = np.arange(5)[:, None] + np.arange(4)  # of four, one apart
    stages = compiler.stages(compiler.largest(compiler.input, windows, (5,)))
    assert len(stages) == 3
    assert [stage.output_size for stage in stages] == [7, 5, 5]  # 7 neighbours, not 10 pairs


def test_a_window_of_nothing_is_refused() -> None:
    compiler = StageCompiler((3,))
    with pytest.raises(ValueError, match="at least one value"):
        compiler.largest(compiler.input, np.array([[0, 1], [-1, -1]]), (2,))
    for ends in ((1.0, 0.0), (np.inf, np.inf), (-np.inf, -np.inf), (np.nan, 1.0)):
        with pytest.raises(ValueError, match=rf"low ≤ high, got {ends[0]} and {ends[1]}"):
            compiler.clip(compiler.input, *ends)


def test_maps_that_cannot_be_composed_are_cut_by_two_relus(monkeypatch: pytest.MonkeyPatch) -> None:
    """x = ReLU(x) − ReLU(−x), so that the next map acts on two stages, in place of a product that is too large."""
    monkeypatch.setattr(tensors, "LARGEST", 20)
    first, second = np.random.default_rng(2).normal(size=(2, 6)), np.random.default_rng(3).normal(size=(5, 2))
    compiler = StageCompiler((6,))
    z = compiler.input.apply(Dense(first), (2,))
    stages = compiler.stages(compiler.applied(z, Dense(second), (5,)))
    assert [stage.output_size for stage in stages] == [2, 2, 5]
    np.testing.assert_allclose(stage_outputs(stages, X), X @ (second @ first).T, rtol=0, atol=1e-13)
