"""Errors of merged and normalised weights: never below the exact difference, 0 where that is 0, and charged."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal, localcontext
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import example, given
from hypothesis import strategies as st
from operations import merge_operations
from rational import compose, exact_map, fractions

from toolkit.networks.convolutions import Conv2d
from toolkit.networks.importers.chain import OperationChain
from toolkit.networks.layers import AffineMap, ChannelAffine, Dense, ReLU, Sparse
from toolkit.networks.merging import merge
from toolkit.networks.network import Network
from toolkit.problems.answers import Verdict
from toolkit.problems.input_sets import LinfBall
from toolkit.problems.problem import Problem
from toolkit.rungs import get_rung
from toolkit.verify.ladder import certify
from toolkit.verify.layer_bounds import layer_bounds
from toolkit.verify.margins import margins

SHAPE = (2, 3, 3)
SIZE = math.prod(SHAPE)
Exact = tuple[list[list[Fraction]], list[Fraction]]


def assert_within(layer: AffineMap, exact: Exact) -> None:
    """‖ΔW_:j‖ ≤ column_error_j and ‖Δb‖ ≤ bias_error, compared as squares of rational numbers."""
    weight, bias = exact_map(layer)
    errors = np.zeros(layer.input_size) if layer.column_error is None else layer.column_error
    for j, allowed in enumerate(fractions(errors)):
        assert sum(((a[j] - b[j]) ** 2 for a, b in zip(weight, exact[0], strict=True)), Fraction(0)) <= allowed**2
    off = sum(((a - b) ** 2 for a, b in zip(bias, exact[1], strict=True)), Fraction(0))
    assert off <= Fraction(layer.bias_error) ** 2


def some_map(kind: str, rng: np.random.Generator, scale: float) -> AffineMap:
    """A map from SHAPE to SHAPE."""
    if kind == "dense":
        return Dense(rng.normal(size=(SIZE, SIZE)) * scale, rng.normal(size=SIZE))
    if kind == "conv":
        return Conv2d(rng.normal(size=(2, 2, 3, 3)) * scale, rng.normal(size=2), SHAPE, padding=1)
    if kind == "sparse":
        matrix = sp.random_array((SIZE, SIZE), density=0.1, rng=rng, data_sampler=rng.normal) * scale
        return Sparse(matrix, rng.normal(size=SIZE))
    return ChannelAffine(rng.normal(size=2) * scale, rng.normal(size=2), SHAPE)


KINDS = st.sampled_from(["dense", "conv", "sparse", "channel"])


@given(kinds=st.lists(KINDS, min_size=2, max_size=4), scales=st.lists(st.integers(-12, 12), min_size=4, max_size=4),
       seed=st.integers(0, 99))  # fmt: skip
def test_merged_maps_carry_the_error_of_their_weights(kinds: list[str], scales: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    maps = [some_map(kind, rng, 10.0**scale) for kind, scale in zip(kinds, scales, strict=False)]
    merged, exact = maps[0], exact_map(maps[0])
    for layer in maps[1:]:
        merged, exact = merge(merged, layer), compose(exact, exact_map(layer))
    assert_within(merged, exact)
    if merged.column_error is not None:
        size = np.abs(merged.to_sparse()).sum(axis=0) + 1e-300
        assert np.all(np.isfinite(merged.column_error))
        if len(maps) == 2 and "dense" not in kinds:
            assert np.all(merged.column_error <= 1e-13 * size.max())


def test_cancelling_products_are_within_their_error() -> None:
    """2⁵³ − ½ − ½ … − 2⁵³ in the product of two matrices and in the bias."""
    count = 200
    column = np.array([2.0**53, *np.full(count, -0.5), -(2.0**53)])
    first, second = Dense(column[:, None], column), Dense(np.ones((1, count + 2)), [0.25])
    merged = merge(first, second)
    assert_within(merged, compose(exact_map(first), exact_map(second)))
    assert merged.column_error is not None
    assert merged.bias_error > 0


@pytest.mark.parametrize("made", [(1e-3, 2e-3), (0.0, 1e-3), (1e-3, 0.0)])
def test_errors_of_both_factors_go_on(made: tuple[float, float]) -> None:
    """Maps known up to an error: every pair of true maps within it composes to within the merged error."""
    rng = np.random.default_rng(0)
    for _ in range(10):
        first, second = (Dense(rng.normal(size=(4, 4)), rng.normal(size=4)) for _ in range(2))
        shifts = [rng.normal(size=(4, 4)) * e for e in made], [rng.normal(size=4) * e for e in made]
        true = [
            ([[a + Fraction(d) for a, d in zip(r, s, strict=True)] for r, s in zip(w, sw.tolist(), strict=True)],
             [a + Fraction(d) for a, d in zip(b, sb.tolist(), strict=True)])
            for (w, b), sw, sb in zip(map(exact_map, (first, second)), *shifts, strict=True)
        ]  # fmt: skip
        known = [
            layer.with_error(np.linalg.norm(sw, axis=0) * (1 + 1e-12), float(np.linalg.norm(sb)) * (1 + 1e-12))
            for layer, sw, sb in zip((first, second), *shifts, strict=True)
        ]
        assert_within(merge(known[0], known[1]), compose(*true))


def test_errors_of_both_factors_multiply() -> None:
    """(1 ± ½)(1 ± ½) reaches 2¼; biases likewise."""
    half = Dense([[1.0]], [1.0]).with_error([0.5], 0.5)
    merged = merge(half, half)
    assert merged.column_error is not None
    assert merged.column_error[0] >= 1.25
    assert merged.bias_error >= 1.5 * 1.5 + 1.5 - 2


@pytest.mark.parametrize("rung", ["interval", "dual", "crown", "alpha"])
def test_each_error_is_taken_off_the_bound(rung: str) -> None:
    ball = LinfBall([2.0], 0.0)
    for error, least in ((([0.5], 0.0), -0.75), ((None, 0.5), -0.25), (([0.25], 0.25), -0.5)):
        network = Network([Dense([[0.0]], [0.25]).with_error(*error)])
        (bound,) = get_rung(rung)(Problem.of(network, ball, np.eye(1), layer_bounds(network, ball)))
        assert least - 1e-5 <= bound.certified_lower <= least


EXACT: list[tuple[AffineMap, AffineMap]] = [
    (Dense(np.array([[0.1, 0.3], [0.7, -0.2]]), [0.3, 0.0]), Dense(np.eye(2)[::-1])),
    (Dense(np.array([[0.1, 0.3], [0.7, -0.2]]), [0.3, 0.1]), ChannelAffine([1.0, 1.0], [0.0, 0.0], (2, 1, 1))),
    (ChannelAffine([0.25, 4.0], [0.0, 0.0], SHAPE), Dense(np.full((2, SIZE), 0.1), [0.3, 0.7])),
    (Dense(np.array([[3.0, 5.0], [7.0, -2.0]]), [1.0, 2.0]), Dense(np.array([[1.0, -6.0]]), [4.0])),
    (Sparse(sp.eye_array(SIZE, format="csr"), np.zeros(SIZE)), Conv2d(np.full((2, 2, 3, 3), 0.1), [0.1, 0.2], SHAPE)),
]


@pytest.mark.parametrize(("first", "second"), EXACT)
def test_exact_products_are_charged_nothing(first: AffineMap, second: AffineMap) -> None:
    merged = merge(first, second)
    assert merged.column_error is None
    assert merged.bias_error == 0.0
    assert_within(merged, compose(exact_map(first), exact_map(second)))


def high_precision(make: Callable[[], Decimal]) -> Fraction:
    with localcontext() as context:
        context.prec = 80
        return Fraction(make())


@given(
    values=st.tuples(*[st.floats(-1e6, 1e6)] * 3), variance=st.floats(0, 1e6), eps=st.sampled_from([1e-5, 1e-3, 1.0])
)
@example(values=(0.1, 1e6, 1e-3), variance=0.5, eps=1e-5)  # the sum rounds more than the product
@example(values=(3.0, 0.1, 0.3), variance=3.0, eps=1.0)  # the scale is exact, the product is not
def test_batch_normalisation_is_within_its_error(
    values: tuple[float, float, float], variance: float, eps: float
) -> None:
    gamma, beta, mean = values
    layer = ChannelAffine.batch_norm([gamma], [beta], [mean], [variance], eps, (1, 1, 2))
    scale = high_precision(lambda: Decimal(gamma) / (Decimal(variance) + Decimal(eps)).sqrt())
    shift = high_precision(
        lambda: Decimal(beta) - Decimal(gamma) / (Decimal(variance) + Decimal(eps)).sqrt() * Decimal(mean)
    )
    slip = Fraction(1, 10**60) * (1 + abs(shift))  # of 80 digits
    columns = [0.0] * 2 if layer.column_error is None else layer.column_error
    assert abs(Fraction(float(layer.scale[0])) - scale) <= Fraction(float(columns[0])) + slip
    assert 2 * (Fraction(float(layer.shift[0])) - shift) ** 2 <= (Fraction(layer.bias_error) + slip * 2) ** 2
    plain = ChannelAffine.batch_norm([3.0], [0.5], [2.0], [3.0], 1.0, (1, 1, 1))
    assert plain.column_error is None
    assert plain.bias_error == 0.0


@given(mean=st.floats(-1e6, 1e6), std=st.floats(1e-6, 1e6))
def test_input_normalisation_is_within_its_error(mean: float, std: float) -> None:
    layer = ChannelAffine.normalize(mean, std, (1, 1, 1))
    assert_within(layer, ([[1 / Fraction(std)]], [-Fraction(mean) / Fraction(std)]))
    halved = ChannelAffine.normalize(mean, 0.5, (1, 1, 1))
    assert halved.column_error is None
    assert halved.bias_error == 0.0 or abs(mean) < 1e-280


def test_average_pooling_and_division_carry_their_error() -> None:
    chain = OperationChain((1, 3, 3))
    chain.average_pool((3, 3), (1, 1), (0, 0), None)
    chain.normalize(0.0, 255.0)
    (layer,) = chain.parts("pool").layers
    assert_within(layer, ([[Fraction(1, 9 * 255)] * 9], [Fraction(0)]))
    assert layer.column_error is not None
    quarters = OperationChain((1, 2, 2))
    quarters.average_pool((2, 2), (1, 1), (0, 0), None)
    assert quarters.parts("pool").layers[0].column_error is None


def merged_margin() -> Network:
    """Linear → Linear → ReLU-free margin: 2⁵³ − ½ − 2⁵³ + ¼ is −¼ in truth and +¼ in the merged float weights."""
    first = Dense([[2.0**53], [1.0], [-(2.0**53)]])
    second = Dense([[1.0, -0.5, 1.0], [0.0, 0.0, 0.0]], [0.25, 0.0])
    return Network(merge_operations([first, second]))


def test_nothing_is_certified_that_only_the_merged_floats_say() -> None:
    network, ball = merged_margin(), LinfBall([1.0], 0.0)
    assert network.forward([1.0])[0] > 0
    for rung in ("interval", "dual", "crown", "alpha"):
        (bound,) = margins(network, ball, 0, rung)
        assert bound.certified_lower <= -0.25, rung
    assert certify(network, ball, 0, ("dual",)).verdict is not Verdict.YES


def test_errors_reach_the_bounds_of_hidden_layers() -> None:
    """The same map in front of a ReLU: its l and u hold −¼."""
    first = Dense([[2.0**53], [1.0], [-(2.0**53)]])
    second = Dense([[1.0, -0.5, 1.0]], [0.25])
    network = Network(merge_operations([first, second, ReLU(), Dense([[1.0], [0.0]], [0.0, 0.1])]))
    ball = LinfBall([1.0], 0.0)
    (bound,) = margins(network, ball, 0, "dual")
    assert bound.certified_lower <= -0.1  # relu(−¼) − 0.1


def test_errors_are_saved_loaded_and_part_of_the_digest(tmp_path: Path) -> None:
    network = merged_margin()
    again = Network.load(network.save(tmp_path / "n.npz"))
    assert again.digest == network.digest
    np.testing.assert_array_equal(again.layers[0].column_error, network.layers[0].column_error)
    assert again.layers[0].bias_error == network.layers[0].bias_error
    layer = network.layers[0]
    plain = Network([Dense(layer.weight, layer.bias)])
    assert plain.digest != network.digest
    part = layer.restrict(np.array([0]), np.array([0]))
    np.testing.assert_array_equal(part.column_error, layer.column_error)
    assert part.bias_error == layer.bias_error


@pytest.mark.parametrize(("columns", "bias"), [([1.0], 0.0), ([-1.0, 0.0], 0.0), ([np.nan, 0.0], 0.0), (None, -1.0)])
def test_errors_that_are_none_are_refused(columns: list[float] | None, bias: float) -> None:
    with pytest.raises(ValueError, match="error must be"):
        Dense(np.ones((1, 2))).with_error(columns, bias)
