"""Affine maps: forward, adjoint, sparse form and restriction agree with each other and with the formulas."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import scipy.sparse as sp
from affine_maps import MAKERS, SHAPE, matrix
from hypothesis import given
from hypothesis import strategies as st

from toolkit.networks.convolutions import Conv2d
from toolkit.networks.layers import AffineMap, ChannelAffine, Dense, Sparse
from toolkit.networks.network import Network
from toolkit.networks.weights import read_only
from toolkit.problems.bounds import ReluBounds

kinds = pytest.mark.parametrize("kind", MAKERS)


@kinds
@given(seed=st.integers(0, 2**32 - 1), batch=st.sampled_from([(), (3,), (2, 1, 3)]))
def test_adjoint_is_the_transpose(kind: str, seed: int, batch: tuple[int, ...]) -> None:
    rng = np.random.default_rng(seed)
    layer = MAKERS[kind](rng)
    x, nu = rng.normal(size=(*batch, layer.input_size)), rng.normal(size=(*batch, layer.output_size))
    forward, back = layer.linear(x), layer.adjoint(nu)
    assert forward.shape == nu.shape
    assert back.shape == x.shape
    np.testing.assert_allclose((forward * nu).sum(-1), (x * back).sum(-1), rtol=1e-11, atol=1e-10)


@kinds
def test_to_sparse_is_the_map_on_the_identity(kind: str, rng: np.random.Generator) -> None:
    layer = MAKERS[kind](rng)
    np.testing.assert_allclose(layer.to_sparse().toarray(), matrix(layer), rtol=0, atol=1e-13)


@kinds
def test_forward_is_linear_plus_bias(kind: str, rng: np.random.Generator) -> None:
    layer = MAKERS[kind](rng)
    x = rng.normal(size=(2, layer.input_size))
    assert layer.bias_vector.shape == (layer.output_size,)
    np.testing.assert_allclose(layer.forward(x), x @ matrix(layer).T + layer.bias_vector, rtol=1e-12, atol=1e-12)


@kinds
def test_compose_rows_folds_dense_and_sparse_rows(kind: str, rng: np.random.Generator) -> None:
    layer = MAKERS[kind](rng)
    rows = rng.normal(size=(3, layer.output_size))
    for given_rows in (rows, sp.csr_array(rows)):
        folded, constant = layer.compose_rows(given_rows)
        folded = folded.toarray() if sp.issparse(folded) else folded
        np.testing.assert_allclose(folded, rows @ matrix(layer), rtol=1e-11, atol=1e-11)
        np.testing.assert_allclose(constant, rows @ layer.bias_vector, rtol=1e-11, atol=1e-11)


@kinds
def test_restrict_is_slicing(kind: str, rng: np.random.Generator) -> None:
    layer = MAKERS[kind](rng)
    outputs = rng.permutation(layer.output_size)[: layer.output_size // 2]
    inputs = np.sort(rng.permutation(layer.input_size)[:20])
    for rows, columns in [(outputs, inputs), (outputs, None), (None, inputs), (None, None), (outputs[:0], inputs)]:
        part = layer.restrict(rows, columns)
        every_row = np.arange(layer.output_size) if rows is None else rows
        every_column = np.arange(layer.input_size) if columns is None else columns
        np.testing.assert_allclose(
            part.to_sparse().toarray(), matrix(layer)[np.ix_(every_row, every_column)], atol=1e-13
        )
        np.testing.assert_array_equal(part.bias_vector, layer.bias_vector[every_row])


def test_batch_norm_and_normalize_are_their_formulas(rng: np.random.Generator) -> None:
    gamma, beta, mean = rng.normal(size=(3, 4))
    variance = rng.uniform(0.1, 2, 4)
    images = rng.normal(size=SHAPE)
    normed = ChannelAffine.batch_norm(gamma, beta, mean, variance, 1e-5, SHAPE).forward(images.ravel())
    g, b, m, v = (values[:, None, None] for values in (gamma, beta, mean, variance))
    np.testing.assert_allclose(normed, ((images - m) / np.sqrt(v + 1e-5) * g + b).ravel(), atol=1e-12)
    scaled = ChannelAffine.normalize(0.25, 0.5, SHAPE).forward(images.ravel())
    np.testing.assert_allclose(scaled, (images.ravel() - 0.25) / 0.5, atol=1e-12)


BAD_WEIGHT = np.ones((2, 3))
BAD_WEIGHT[1, 2] = np.nan


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Dense(BAD_WEIGHT), r"Dense weight must be finite, got nan at index \(1, 2\)"),
        (lambda: Dense(np.ones((2, 3)), [0.0, np.inf]), r"Dense bias must be finite, got inf at index \(1,\)"),
        (lambda: Dense(np.ones(3)), r"Dense weight must have 2 axes, got shape \(3,\)"),
        (lambda: Dense(np.ones((2, 3)), np.ones(3)), r"bias must have shape \(2,\) for weight \(2, 3\), got \(3,\)"),
        (lambda: Sparse(sp.csr_array([[1.0, np.inf]]), [0.0]), "Sparse matrix must be finite"),
        (lambda: Sparse(sp.csr_array([[1.0, 2.0]]), [0.0, 1.0]), r"must have shape \(1,\), got \(2,\)"),
        (lambda: ChannelAffine([1.0], [1.0], (2, 3, 3)), "needs 2 scales and shifts"),
        (lambda: ChannelAffine.normalize(0.0, [1.0, 0.0], (2, 3, 3)), r"std must be ≠ 0, got \[1.0, 0.0\]"),
        (
            lambda: ChannelAffine.batch_norm([1.0], [0.0], [0.0], [-1.0], 1e-5, (1, 2, 2)),
            "variance \\+ eps must be > 0",
        ),
    ],
)
def test_bad_maps_are_refused(make: Callable[[], AffineMap], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


MASKED = np.ma.masked_array(np.ones((2, 2)), [[0, 1], [0, 0]])


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: Dense(MASKED), "Dense weight"),
        (lambda: Dense(np.ones((2, 2)), MASKED[0]), "Dense bias"),
        (lambda: Sparse(MASKED, np.zeros(2)), "Sparse matrix"),
        (lambda: ChannelAffine(MASKED[0], np.zeros(2), (2, 1, 1)), "ChannelAffine scale"),
        (lambda: Conv2d(MASKED[None, None], None, (1, 3, 3)), "Conv2d weight"),
        (lambda: Network([Dense(np.ones((2, 2)))]).forward(MASKED), "x"),
        (lambda: ReluBounds((MASKED[0],), (np.ones(2),)), "layer 0: lower"),
        (lambda: ReluBounds((np.zeros(2),), (read_only(MASKED[0].copy()),)), "layer 0: upper"),
    ],
)
def test_entries_that_are_missing_are_not_read(make: Callable[[], object], name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must have no masked entries, got MaskedArray of shape"):
        make()


def test_a_mask_that_hides_nothing_changes_nothing() -> None:
    whole = np.ma.masked_array(np.array([1.0, -2.0]), [False, False])
    network = Network([Dense(np.diag([2.0, 3.0]))])
    assert type(network.forward(whole)) is np.ndarray
    np.testing.assert_array_equal(network.forward(whole), [2.0, -6.0])
