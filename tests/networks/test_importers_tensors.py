"""Affine tensors hold the function they stand for: exactly, or within the error they carry, in rational arithmetic."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.networks.importers import tensors
from toolkit.networks.importers.tensors import AffineTensor, TooLargeError, rearrange
from toolkit.networks.layers import AffineMap, ChannelAffine, Dense, Sparse

Exact = dict[int, np.ndarray]  # place → matrix of Fractions; place −1 → the bias


def fractions(values: np.ndarray) -> np.ndarray:
    found = np.array([Fraction(float(v)) for v in np.ravel(values)], dtype=object)
    return found.reshape(np.shape(values))


def exactly(tensor: AffineTensor) -> Exact:
    """The tensor's float maps as rational numbers."""
    found = {-1: fractions(tensor.bias)}
    for place, layer in tensor.sources:
        found[place] = fractions(np.eye(tensor.size) if layer is None else layer.to_sparse().toarray())
    return found


def assert_within(tensor: AffineTensor, truth: Exact) -> None:
    """The true maps lie within the errors that the tensor's maps carry."""
    own = exactly(tensor)
    assert own.keys() == truth.keys()
    for place, layer in tensor.sources:
        off = own[place] - truth[place]
        allowed = np.zeros(off.shape[1]) if layer is None or layer.column_error is None else layer.column_error
        for j in range(off.shape[1]):
            assert sum((v * v for v in off[:, j]), Fraction(0)) <= Fraction(float(allowed[j])) ** 2
    bias_error = sum(Fraction(layer.bias_error) for _, layer in tensor.sources if layer is not None)
    off = own[-1] - truth[-1]
    assert sum((v * v for v in off), Fraction(0)) <= bias_error**2


def random_map(rng: np.random.Generator, outputs: int, inputs: int, bias: bool) -> AffineMap:
    weight = rng.normal(size=(outputs, inputs)) * 10.0 ** rng.integers(-3, 4, size=(outputs, inputs))
    shift = rng.normal(size=outputs) if bias else np.zeros(outputs)
    if rng.random() < 0.5:
        return Dense(weight, shift)
    return Sparse(sp.csr_array(weight * (rng.random(weight.shape) < 0.4)), shift)


def random_tensor(rng: np.random.Generator, size: int = 4) -> AffineTensor:
    """A tensor over up to three places of 4 values, one of them perhaps as it is."""
    places = sorted(rng.choice(3, size=int(rng.integers(1, 4)), replace=False).tolist())
    sources: list[tuple[int, AffineMap | None]] = []
    for k, place in enumerate(places):
        plain = size == 4 and rng.random() < 0.3
        sources.append((place, None if plain else random_map(rng, size, 4, k == 0)))
    return AffineTensor((size,), tuple(sources))


SEEDS = st.integers(0, 2**32 - 1)


@given(seed=SEEDS)
@settings(max_examples=40)
def test_sums_lie_within_their_errors(seed: int) -> None:
    rng = np.random.default_rng(seed)
    left, right = random_tensor(rng), random_tensor(rng)
    total = left.plus(right)
    one, other = exactly(left), exactly(right)
    zero = fractions(np.zeros((4, 4)))
    truth = {place: one.get(place, zero) + other.get(place, zero) for place in (one.keys() | other.keys()) - {-1}}
    assert_within(total, truth | {-1: one[-1] + other[-1]})
    assert [place for place, _ in total.sources] == sorted(truth)


@given(seed=SEEDS)
@settings(max_examples=40)
def test_compositions_lie_within_their_errors_and_errors_add_up(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tensor, truth = random_tensor(rng), None
    truth = exactly(tensor)
    for _ in range(3):
        kind = int(rng.integers(0, 3))
        layer: AffineMap = random_map(rng, 4, 4, True)
        if kind == 0:
            layer = ChannelAffine(rng.normal(size=4), rng.normal(size=4), (4, 1, 1))
        weight, shift = fractions(layer.to_sparse().toarray()), fractions(layer.bias_vector)
        tensor = tensor.apply(layer, (2, 2)).reshape((4,))
        truth = {place: weight @ matrix + (shift if place == -1 else 0) for place, matrix in truth.items()}
        if kind == 2:
            rows = rng.integers(-1, 4, size=4)
            found = rearrange([tensor], rows, (4,))
            if not isinstance(found, AffineTensor):
                return
            tensor = found
            truth = {k: np.array([m[r] if r >= 0 else m[0] * 0 for r in rows], dtype=object) for k, m in truth.items()}
    assert_within(tensor, truth)


@given(seed=SEEDS)
@settings(max_examples=40)
def test_moving_entries_selects_rows_and_charges_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    left, right, constant = random_tensor(rng), random_tensor(rng, 3), rng.normal(size=2)
    rows = rng.integers(-1, 9, size=6)
    moved = rearrange([left, right, constant], rows, (2, 3))
    bias = np.concatenate([left.bias, right.bias, constant])
    expected = np.where(rows >= 0, bias[rows], 0.0)
    if isinstance(moved, np.ndarray):
        assert np.all((rows < 0) | (rows >= 7))
        np.testing.assert_array_equal(moved.ravel(), expected)
        return
    assert moved.shape == (2, 3)
    np.testing.assert_array_equal(moved.bias, expected)
    both = [exactly(left), exactly(right)]
    for place, layer in moved.sources:
        parts = [part.get(place, fractions(np.zeros((n, 4)))) for part, n in zip(both, (4, 3), strict=True)]
        whole = np.concatenate([*parts, fractions(np.zeros((2, 4)))])
        truth = np.array([whole[r] if r >= 0 else whole[-1] for r in rows], dtype=object)
        assert np.all(exactly(moved)[place] == truth)
        assert layer is None or (layer.column_error is None and layer.bias_error == 0)


def test_repeated_rows_repeat_their_error() -> None:
    layer = Dense(np.ones((2, 2)), np.ones(2)).with_error([3.0, 4.0], 5.0)
    found = rearrange([AffineTensor((2,), ((0, layer),))], np.array([0, 0, 0, 0, 1]), (5,))
    assert isinstance(found, AffineTensor)
    made = found.sources[0][1]
    assert made is not None
    assert made.column_error is not None
    assert np.all(made.column_error >= [6.0, 8.0])
    assert np.all(made.column_error <= [6.1, 8.1])
    assert 10.0 <= made.bias_error <= 10.1


def test_what_nothing_changes_stays_what_it_is(rng: np.random.Generator) -> None:
    tensor = random_tensor(rng)
    same = rearrange([tensor], np.arange(4), (2, 2))
    assert isinstance(same, AffineTensor)
    assert same.sources is tensor.sources
    place = AffineTensor((4,), ((2, None),))
    assert place.is_place
    assert place.reshape((2, 2)).is_place
    assert not place.plus(place).is_place


def test_what_does_not_fit_is_refused(rng: np.random.Generator) -> None:
    tensor = random_tensor(rng)
    with pytest.raises(ValueError, match=r"shape \(4,\) cannot take shape \(3, 2\)"):
        tensor.reshape((3, 2))
    with pytest.raises(ValueError, match=r"shapes \(4,\) and \(2, 2\) cannot be added"):
        tensor.plus(tensor.reshape((2, 2)))
    with pytest.raises(ValueError, match="rows must be −1 … 3, got 0 … 4"):
        rearrange([tensor], np.array([0, 4]), (2,))


def test_products_that_would_be_too_large_are_refused_before_they_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensors, "LARGEST", 60)
    wide = AffineTensor((5,), ((0, Dense(np.ones((5, 9)))),))
    with pytest.raises(TooLargeError, match="composing two maps would need a matrix of up to 63 entries; at most 60"):
        wide.apply(Dense(np.ones((7, 5))), (7,))
    assert wide.apply(Dense(np.ones((6, 5))), (6,)).size == 6
