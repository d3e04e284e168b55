"""Bounds belong to the ball and weights they were computed for and never outlive them; crossed bounds are none."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from conftest import random_conv_network, random_dense_network

from toolkit.networks.convolutions import Conv2d
from toolkit.networks.layers import ChannelAffine, Dense, Sparse
from toolkit.networks.network import Network
from toolkit.problems.answers import Bound, RowBounds, Verdict
from toolkit.problems.bounds import ReluBounds, region_digest
from toolkit.problems.input_sets import LinfBall
from toolkit.problems.problem import Problem
from toolkit.problems.reduced import alive_network, alive_part
from toolkit.problems.region import Region
from toolkit.problems.settings import Settings
from toolkit.rungs import RUNGS, get_rung
from toolkit.rungs.dual import certified_values
from toolkit.rungs.rung import Cost, Rung, Side, each_row
from toolkit.runs.sweep.bounds_cache import load_bounds, save_bounds
from toolkit.verify.ladder import certify
from toolkit.verify.layer_bounds import _Box, _check_order, bound_layers, layer_bounds
from toolkit.verify.margins import margin_problem, margins

CLOSED_FORMS = ("interval", "dual", "crown", "alpha", "lp", "bab")


@pytest.fixture
def network() -> Network:
    return random_dense_network(np.random.default_rng(0), (4, 12, 12, 3))


@pytest.fixture
def center() -> np.ndarray:
    return np.random.default_rng(1).normal(size=4)


def test_bounds_of_another_ball_or_network_are_refused(network: Network, center: np.ndarray) -> None:
    small = layer_bounds(network, LinfBall(center, 0.01))
    assert small.certified
    assert small.region
    for other in (LinfBall(center, 0.2), LinfBall(center + 1e-9, 0.01), LinfBall(center, 0.01, (-9, 9))):
        with pytest.raises(ValueError, match="relu_bounds belong to another ball"):
            margins(network, other, 0, "dual", small)
    first, second, last = network.layers
    weight = second.weight.copy()
    weight[3, 4] = np.nextafter(weight[3, 4], 9)
    changed = Network([first, Dense(weight, second.bias), last])
    with pytest.raises(ValueError, match="belong to another network: map 1 differs"):
        margins(changed, LinfBall(center, 0.01), 0, "dual", small)
    charged = Network([first.with_error(None, 1e-9), second, last])
    with pytest.raises(ValueError, match="map 0 differs"):
        margins(charged, LinfBall(center, 0.01), 0, "dual", small)


def test_bounds_serve_cuts_and_networks_that_differ_behind_them(network: Network, center: np.ndarray) -> None:
    ball = LinfBall(center, 0.05)
    bounds = layer_bounds(network, ball)
    other = Network([*network.layers[:-1], Dense(np.ones((2, 12)))])
    assert margins(other, LinfBall(center, 0.05), 0, "dual", bounds)[0].certified_lower > -np.inf
    for layers in (0, 1):
        part = replace(bounds, lower=bounds.lower[:layers], upper=bounds.upper[:layers])
        cut = network.cut(layers)
        (bound,) = get_rung("dual")(Problem.of(cut, ball, np.eye(1, 12), part))
        assert bound.certified_lower > -np.inf
    with pytest.raises(ValueError, match=r"layer sizes \(12,\)"):
        Problem.of(network.cut(1), ball, np.eye(12), bounds)
    affine = Network(network.layers[:1])
    assert layer_bounds(affine, ball).certified


def test_digests_of_cuts_are_those_of_the_networks_they_are(network: Network, center: np.ndarray) -> None:
    ball = LinfBall(center, 0.05)
    fresh = [Network(network.layers[: k + 1]).digest for k in range(3)]
    assert [network.cut(k).digest for k in range(3)] == fresh == list(network.prefix_digests)
    assert region_digest(network, ball).startswith(region_digest(network.cut(1), ball))
    same = LinfBall(center.copy(), 0.05)
    assert region_digest(Network(network.layers), same) == region_digest(network, ball)


def test_bounds_given_by_hand_certify_nothing(network: Network, center: np.ndarray) -> None:
    ball = LinfBall(center, 0.2)
    small = layer_bounds(network, LinfBall(center, 0.01))
    for certified in (False, True):
        by_hand = ReluBounds(small.lower, small.upper, certified=certified)
        assert not by_hand.certified
        for rung in CLOSED_FORMS:
            for bound in margins(network, ball, 0, rung, by_hand):
                assert bound.certified_lower == -np.inf, rung


def test_another_ball_or_network_starts_with_an_empty_cache(network: Network, center: np.ndarray) -> None:
    """By hand, so that nothing refuses: what was reduced to the alive part of one region stays there."""
    free = ReluBounds(tuple(np.full(12, -50.0) for _ in range(2)), tuple(np.full(12, 50.0) for _ in range(2)))
    problem = Problem.of(network, LinfBall(center, 0.01), np.eye(3), free)
    (before, *_) = get_rung("dual")(problem)
    wide = replace(problem, region=replace(problem.region, input_set=LinfBall(center, 3.0)))
    (fresh, *_) = get_rung("dual")(Problem.of(network, LinfBall(center, 3.0), np.eye(3), free))
    (after, *_) = get_rung("dual")(wide)
    assert after.lower == fresh.lower < before.lower
    other = random_dense_network(np.random.default_rng(5), (4, 12, 12, 3))
    changes = ({"network": other}, {"relu_bounds": replace(free, chain=("x",))}, {"input_set": LinfBall(center, 0.01)})
    for change in changes:
        region = replace(problem.region, **change)  # type: ignore[arg-type]
        assert alive_network(replace(problem, region=region)) is not alive_network(problem)
    assert alive_network(problem.with_rows(np.eye(3)[:1])) is alive_network(problem)
    assert alive_network(problem.with_settings(Settings(seed=1))) is alive_network(problem)


def test_a_replaced_ball_cannot_keep_certified_bounds(network: Network, center: np.ndarray) -> None:
    problem = margin_problem(network, LinfBall(center, 0.01), 0)
    with pytest.raises(ValueError, match="belong to another ball"):
        replace(problem.region, input_set=LinfBall(center, 0.2))


def test_the_cache_of_a_sweep_keeps_region_and_certification(
    network: Network, center: np.ndarray, tmp_path: Path
) -> None:
    bounds = layer_bounds(network, LinfBall(center, 0.01))
    save_bounds(tmp_path / "b.npz", bounds, 1.0)
    found = load_bounds(tmp_path / "b.npz", bounds.chain, network.relu_sizes)
    assert found is not None
    assert (found[0].region, found[0].certified) == (bounds.region, True)
    with pytest.raises(ValueError, match="another ball"):
        margins(network, LinfBall(center, 0.02), 0, "dual", found[0])


def test_layers_and_bounds_are_copies_that_nobody_can_write() -> None:
    weight, bias = np.ones((2, 2)), np.zeros(2)
    matrix = sp.csr_array(np.eye(2))
    kernel, scale = np.ones((1, 1, 1, 1)), np.ones(1)
    layers = [
        Dense(weight, bias),
        Sparse(matrix, bias),
        Conv2d(kernel, scale, (1, 1, 2)),
        ChannelAffine(scale, scale, (1, 1, 2)),
    ]
    network = Network(layers)
    before = network.digest, network.forward([1.0, 2.0]).tolist()
    for array in (weight, bias, kernel, scale, matrix.data):
        array *= 1000
    fresh = Network(layers)
    assert (fresh.digest, fresh.forward([1.0, 2.0]).tolist()) == before
    for twin in (layers, copy.deepcopy(layers), pickle.loads(pickle.dumps(layers))):
        dense, sparse, conv, channel = twin
        arrays = [dense.weight, dense.bias, sparse.matrix.data, sparse.matrix.indices, sparse.matrix.indptr,
                  conv.weight, conv.to_sparse().data, channel.scale, channel.shift]  # fmt: skip
        assert not any(array.flags.writeable for array in arrays)
    with pytest.raises(AttributeError, match=r"Dense\.weight is set once"):
        layers[0].weight = weight
    low, high = np.array([-1.0]), np.array([1.0])
    bounds = ReluBounds((low,), (high,))
    low[0] = 0.5
    assert bounds.lower[0][0] == -1.0
    for twin_bounds in (bounds, pickle.loads(pickle.dumps(bounds))):
        with pytest.raises(ValueError, match="read-only"):
            twin_bounds.upper[0][0] = 9.0
    part = layers[0].restrict(np.array([0]), None)
    assert not part.weight.flags.writeable


NOT_REAL = [
    np.ones((1, 1), dtype=complex),
    np.ones((1, 1), dtype=object),
    np.ones((1, 1), dtype=bool),
    np.array([["1"]]),
    [[None]],
    [["0.5"]],
    np.array([["2020-01-01"]], dtype="datetime64[D]"),
]
MAKERS: list[Callable[[object], object]] = [
    lambda v: Dense(v),
    lambda v: Dense(np.ones((1, 1)), np.ravel(v)),
    lambda v: Sparse(v, [0.0]),
    lambda v: Conv2d(np.reshape(v, (1, 1, 1, 1)), None, (1, 1, 1)),
    lambda v: ChannelAffine(np.ravel(v), [0.0], (1, 1, 1)),
    lambda v: ReluBounds((np.ravel(v),), (np.ravel(v),)),
    lambda v: ChannelAffine.normalize(np.ravel(v), [1.0], (1, 1, 1)),
]


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("values", NOT_REAL, ids=lambda v: str(np.asarray(v).dtype))
def test_numbers_that_are_not_real_are_refused(make: Callable[[object], object], values: object) -> None:
    with pytest.raises(ValueError, match="must be real numbers, got dtype"):
        make(values)


@pytest.mark.parametrize(
    "value", [np.longdouble(1) + np.finfo(np.longdouble).eps, np.int64(2**53 + 1), np.uint64(2**64 - 1), 2**62 + 1]
)
def test_numbers_that_float64_would_round_are_refused(value: object) -> None:
    values = np.array([[value]])
    if values.dtype == np.float64:
        pytest.skip("long double is float64 here")
    with pytest.raises(ValueError, match="must fit into float64 exactly"):
        Dense(values)
    for exact in (np.longdouble(0.1), np.int64(-(2**60)), np.uint64(2**63), np.float16(0.1), np.int8(3)):
        if Dense(np.array([[np.float64(exact)]])).weight[0, 0] == exact:
            assert Dense(np.array([[exact]])).weight[0, 0] == exact


def test_sparse_matrices_with_repeated_or_impossible_entries_are_refused() -> None:
    data = np.array([1.0, 1.0])
    with pytest.raises(ValueError, match="must give every entry once, got 1"):
        Sparse(sp.csr_array((data, [0, 0], [0, 2]), shape=(1, 2)), [0.0])
    with pytest.raises(ValueError, match="must give every entry once"):
        Sparse(sp.coo_array((data, ([0, 0], [1, 1])), shape=(1, 2)), [0.0])
    for indices, indptr in (([0, 7], [0, 2]), ([0, -1], [0, 2])):
        with pytest.raises(ValueError, match="ind"):
            Sparse(sp.csr_array((data, indices, indptr), shape=(1, 2)), [0.0])
    unsorted = Sparse(sp.csr_array((np.array([3.0, 4.0]), [1, 0], [0, 2]), shape=(1, 2)), [0.0])
    np.testing.assert_array_equal(unsorted.to_sparse().toarray(), [[4.0, 3.0]])


@pytest.mark.parametrize(
    ("lower", "upper"), [([np.inf], [np.inf]), ([-np.inf], [-np.inf]), ([2.0], [1.0]), ([np.nan], [np.nan])]
)
def test_bounds_that_hold_for_no_number_are_refused(lower: list[float], upper: list[float]) -> None:
    with pytest.raises(ValueError, match="layer 0, neuron 0: lower must be ≤ upper"):
        ReluBounds((np.array(lower),), (np.array(upper),))


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.float64])
def test_rows_of_any_dtype_are_charged_alike(dtype: type, network: Network, center: np.ndarray) -> None:
    """In int64 or float32 the squares of a norm would overflow or vanish."""
    ball = LinfBall(center, 0.1)
    bounds = layer_bounds(network, ball)
    rows = (np.eye(3) * 2.0**40).astype(dtype)
    for given in (rows, sp.csr_array(rows)):
        found = get_rung("interval").lower_values(Problem.of(network, ball, given, bounds))
        wanted = get_rung("interval").lower_values(Problem.of(network, ball, np.eye(3) * 2.0**40, bounds))
        np.testing.assert_allclose(found, wanted, rtol=1e-12)
    with pytest.raises(ValueError, match="rows must be real numbers"):
        Problem.of(network, ball, rows.astype(complex), bounds)
    with pytest.raises(ValueError, match="rows must give every entry once"):
        Problem.of(network, ball, sp.csr_array((np.ones(2), [0, 0], [0, 2]), shape=(1, 3)), bounds)


@pytest.mark.parametrize("wrong", [-0.5, 1.5, np.nan, np.inf, -1e-300])
def test_slopes_that_are_no_dual_point_are_refused(wrong: float, network: Network, center: np.ndarray) -> None:
    problem = margin_problem(network, LinfBall(center, 0.3), 0)
    alive = alive_network(problem)
    slopes = [np.full(low.size, 0.5) for low in alive.lower]
    assert np.all(np.isfinite(certified_values(problem, slopes)))
    place = int(np.flatnonzero(alive.unstable(1))[0])
    slopes[1][place] = wrong
    with pytest.raises(ValueError, match=r"slopes of ReLU layer 1 must be in \[0, 1\], got"):
        certified_values(problem, slopes)
    with pytest.raises(ValueError, match="one array per ReLU layer, 2, got 1"):
        certified_values(problem, slopes[:1])
    with pytest.raises(ValueError, match="must end in its"):
        certified_values(problem, [slopes[0][:-1], slopes[1]])


def crossed(low: float, high: float, scale: float, rungs: list[Rung]) -> _Box:
    """The box after a rung bounded the one neuron of a map with terms of this size."""
    network = Network([Dense([[scale]])])
    problem = Problem.of(network, LinfBall([1.0], 0.0), np.eye(1), ReluBounds((), ()), Settings(rigorous=False))
    box = _Box(np.array([low]), np.array([high]))
    _check_order(box, rungs[-1], problem, rungs)
    return box


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_crossed_bounds_are_never_repaired_into_less_than_they_claim(scale: float) -> None:
    word = replace(get_rung("interval"), name="word", certifies=False)
    low, high = np.nextafter(scale, np.inf), scale
    with pytest.raises(ValueError, match=r"gives certified bounds l = .* > u = "):
        crossed(low, high, scale, [get_rung("interval"), get_rung("dual")])
    box = crossed(low, high, scale, [get_rung("interval"), word])
    assert (box.low[0], box.high[0]) == (high, low)
    with pytest.raises(ValueError, match=r"gives bounds l = .* > u = "):
        crossed(scale * (1 + 1e-5), scale, scale, [get_rung("interval"), word])


def test_a_rung_that_lies_about_a_layer_is_found_out(
    network: Network, center: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Certified bounds of which one must be false stop the run, by however little they cross."""

    def lying(problem: Problem) -> RowBounds:
        high = get_rung("interval").run(problem).highest
        assert high is not None
        return RowBounds(high + 1e-9 * np.abs(high), high)

    monkeypatch.setitem(RUNGS, "liar", Rung("liar", Side.LOWER, "", "", lying, Cost.CLOSED_FORM, certifies=True))
    with pytest.raises(ValueError, match="rung 'liar' gives certified bounds"):
        layer_bounds(network, LinfBall(center, 0.2), ("interval", "liar"))


def test_a_witness_outside_the_ball_proves_nothing(
    network: Network, center: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rung that offers a misclassified point just outside P gets no NO for it."""
    label = int(network.predict(center))
    ball = LinfBall(center, 1e-3)
    rng = np.random.default_rng(0)
    far = next(x for x in center + 4 * rng.normal(size=(1000, 4)) if int(network.predict(x)) != label)

    def offering(problem: Problem) -> list[Bound]:
        return [Bound(-np.inf, -1.0, witness=far) for _ in range(problem.rows.shape[0])]

    offer = Rung("offer", Side.UPPER, "", "", run=each_row(offering), uses_relu_bounds=False)
    monkeypatch.setitem(RUNGS, "offer", offer)
    answer = certify(network, ball, label, ("offer",))
    assert answer.verdict is Verdict.MAYBE
    assert answer.witness is None


def test_conv_networks_have_regions_too() -> None:
    network = random_conv_network(np.random.default_rng(0))
    ball = LinfBall(np.full(network.input_size, 0.5), 0.01, (0, 1))
    bounds = layer_bounds(network, ball, ("interval", "dual"))
    assert bounds.region == region_digest(network, ball)
    assert np.isfinite(margins(network, ball, 0, "dual", bounds)[0].certified_lower)


@pytest.mark.parametrize("kind", ["dense", "conv"])
def test_a_region_grown_from_a_shorter_one_is_reduced_the_same(kind: str) -> None:
    rng = np.random.default_rng(4)
    network = random_dense_network(rng, (4, 12, 12, 3)) if kind == "dense" else random_conv_network(rng)
    ball = LinfBall(rng.uniform(0, 1, network.input_size), 0.1)
    bounds, cut = bound_layers(network, ball, ("interval", "dual"))
    assert cut is not None
    grown, alone = Region(network, ball, bounds, cut), Region(network, ball, bounds)
    assert grown.extends(cut)
    one, other = grown.derive(alive_part), alone.derive(alive_part)
    assert grown.shorter is None  # let go
    for a, b in zip(one.stages, other.stages, strict=True):
        assert [place for place, _ in a.sources] == [place for place, _ in b.sources]
        assert (a.stacked.to_sparse() != b.stacked.to_sparse()).nnz == 0
        np.testing.assert_array_equal(a.bias, b.bias)
    for name in ("alive", "lower", "upper"):
        for a, b in zip(getattr(one, name), getattr(other, name), strict=True):
            np.testing.assert_array_equal(a, b)
    looser = ReluBounds(tuple(low - 1.0 for low in bounds.lower), tuple(high + 1.0 for high in bounds.upper))
    assert not Region(network, ball, looser, cut).extends(cut)
    assert not Region(
        network, LinfBall(ball.center, 0.1), layer_bounds(network, LinfBall(ball.center, 0.1)), cut
    ).extends(cut)
    assert not cut.extends(cut)
