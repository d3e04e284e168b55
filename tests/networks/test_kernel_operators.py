"""A large convolution without a matrix answers as its matrix does, whole and between chosen outputs and inputs."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from affine_maps import GEOMETRIES, SHAPE, random_conv, random_sparse
from rational import fractions

from toolkit.networks import convolutions, kernel_operators
from toolkit.networks.convolutions import Conv2d, ConvolutionPart, compose_or_select
from toolkit.networks.kernel_operators import KernelOperator, sparse_product
from toolkit.networks.layers import AffineMap, ChannelAffine, Sparse
from toolkit.networks.merging import merge
from toolkit.networks.network import Network
from toolkit.networks.parts import operator_norm
from toolkit.networks.replay import evaluation_errors, replay_margins
from toolkit.networks.stages import ColumnStage, Stage
from toolkit.networks.weight_error import column_norms, spectral_bound
from toolkit.problems.properties import selection_rows

CLOSE = {"rtol": 1e-12, "atol": 1e-13}


def both(
    rng: np.random.Generator, geometry: dict[str, object], monkeypatch: pytest.MonkeyPatch, spatial: bool = False
) -> tuple[Conv2d, Conv2d]:
    """The same convolution with its matrix and without."""
    stored = random_conv(rng, geometry, spatial)
    assert stored.operator is None
    monkeypatch.setattr(convolutions, "MATRIX_ENTRIES", 0)
    places = stored.stride, stored.padding, stored.dilation, stored.groups
    large = Conv2d(stored.weight, stored.bias, stored.shape, *places)
    assert isinstance(large.operator, KernelOperator)
    return stored, large


def assert_same(large: AffineMap, stored: AffineMap, rng: np.random.Generator) -> None:
    """Passes, entries, norms and counts of one map without a matrix and one with it."""
    matrix = stored.to_sparse().toarray()
    np.testing.assert_array_equal(large.to_sparse().toarray(), matrix)
    np.testing.assert_array_equal(large.bias_vector, stored.bias_vector)
    x, nu = rng.normal(size=(2, 3, large.input_size)), rng.normal(size=(2, 3, large.output_size))
    np.testing.assert_allclose(large.forward(x), stored.forward(x), **CLOSE)
    np.testing.assert_allclose(large.adjoint(nu), stored.adjoint(nu), **CLOSE)
    rows = sp.random_array((6, large.output_size), density=0.05, rng=rng, format="csr")
    for found in (large.adjoint(rows), large.compose_rows(rows)[0]):
        found = found.toarray() if sp.issparse(found) else found
        np.testing.assert_allclose(found, rows @ matrix, **CLOSE)
    (norm, bias, terms), expected = operator_norm(large), operator_norm(stored)
    assert (norm, bias) == pytest.approx(expected[:2], rel=1e-12)
    assert terms >= expected[2]
    assert np.all(large.row_peaks() >= stored.row_peaks())
    operand, scale = large.operand(), rng.uniform(0.5, 2.0, large.output_size)
    if isinstance(operand, KernelOperator):
        np.testing.assert_allclose(abs(operand) @ np.abs(x[0].T), np.abs(matrix) @ np.abs(x[0].T), **CLOSE)
        np.testing.assert_allclose(operand.T @ nu[0].T, matrix.T @ nu[0].T, **CLOSE)
        np.testing.assert_allclose(nu[0] @ operand, nu[0] @ matrix, **CLOSE)
        true = np.sqrt(np.square(matrix * scale[:, None]).sum(axis=0))
        assert np.all(true <= operand.norms(0, scale))
        assert np.all(operand.norms(0, scale) <= 1.00001 * true + 1e-100)
        true = np.sqrt(np.square(matrix).sum(axis=1))
        assert np.all(true <= operand.norms(1))
        assert np.all(operand.norms(1) <= 1.00001 * true + 1e-100)
        assert spectral_bound(operand) == pytest.approx(spectral_bound(stored.to_sparse()), rel=1e-5)
        np.testing.assert_array_equal(operand[1:4].toarray(), matrix[1:4])


@pytest.mark.parametrize("spatial", [False, True])
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_a_convolution_without_a_matrix_is_the_one_with_it(
    geometry: dict[str, object], spatial: bool, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored, large = both(rng, geometry, monkeypatch, spatial)
    assert_same(large, stored, rng)
    assert (large.row_spread, large.row_entries) == (stored.row_spread, stored.row_entries)
    (norms, most), (expected, count) = large.column_norms, stored.column_norms
    assert most == count
    assert np.all(expected <= norms)
    assert np.all(norms <= 1.00001 * expected + 1e-100)


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_its_parts_are_parts_of_the_matrix(
    geometry: dict[str, object], rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored, large = both(rng, geometry, monkeypatch)
    stored, large = (one.with_error(np.linspace(0, 1, 120), 0.5) for one in (stored, large))
    outputs = np.flatnonzero(rng.uniform(size=stored.output_size) < 0.7)
    inputs = np.flatnonzero(rng.uniform(size=stored.input_size) < 0.7)
    for some, other in ((outputs, inputs), (None, inputs), (outputs, None)):
        part, expected = large.restrict(some, other), stored.restrict(some, other)
        assert isinstance(part, ConvolutionPart)
        assert_same(part, expected, rng)
        np.testing.assert_array_equal(part.column_error, expected.column_error)
        assert part.bias_error == 0.5
        again = np.arange(0, expected.output_size, 3)
        assert_same(part.restrict(again, None), expected.restrict(again, None), rng)
    monkeypatch.setattr(convolutions, "MATRIX_ENTRIES", 4 * 24)
    few = large.restrict(outputs[:4], inputs)
    assert isinstance(few, Sparse)  # rows that fit are written out
    np.testing.assert_array_equal(few.to_sparse().toarray(), stored.restrict(outputs[:4], inputs).to_sparse().toarray())


@pytest.mark.parametrize(("entries", "kept"), [(1, 0), (50, 0), (400, 0), (50, 1 << 20)])
def test_sparse_rows_are_multiplied_block_by_block(
    entries: int, kept: int, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored, large = both(rng, {"padding": 1, "stride": 2}, monkeypatch)
    monkeypatch.setattr(kernel_operators, "BLOCK_ENTRIES", entries)
    monkeypatch.setattr(kernel_operators, "STORED_ENTRIES", kept)
    assert large.operator is not None
    rows = sp.vstack([random_sparse(rng, 9, stored.output_size).matrix, np.ones((1, stored.output_size))], format="csr")
    rows = sp.vstack([rows, sp.csr_array((2, stored.output_size)), rows[:3]], format="csr")
    found = sparse_product(rows, large.operator)
    np.testing.assert_allclose(found.toarray(), (rows @ stored.to_sparse()).toarray(), **CLOSE)
    assert large.operator.is_stored is bool(kept)
    assert sparse_product(rows[:0], large.operator).shape == (0, stored.input_size)


def test_many_unit_rows_are_the_operator_itself(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    stored, large = both(rng, {"padding": 1}, monkeypatch)
    chosen, x = np.arange(3, stored.output_size), rng.normal(size=stored.input_size)
    for sign in (1, -1):
        rows = selection_rows(stored.output_size, chosen, sign)
        found, constant = compose_or_select(large, rows)
        assert isinstance(found, KernelOperator)
        np.testing.assert_allclose(found @ x, rows @ (stored.to_sparse() @ x), **CLOSE)
        np.testing.assert_allclose(abs(found) @ np.abs(x), abs(stored.to_sparse()[chosen]) @ np.abs(x), **CLOSE)
        np.testing.assert_array_equal(constant, rows @ stored.bias_vector)
        for other in (2.0 * rows, rows + sp.eye_array(*rows.shape, format="csr")):
            assert not isinstance(compose_or_select(large, other)[0], KernelOperator)


def test_stages_of_columns_take_it(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    stored, large = both(rng, {"groups": 2, "padding": 1, "stride": 2}, monkeypatch)
    one, other = (ColumnStage.of(Stage(((0, layer),))) for layer in (stored, large))
    x, nu = rng.normal(size=(stored.input_size, 4)), rng.normal(size=(stored.output_size, 4))
    np.testing.assert_allclose(other.forward([x]), one.forward([x]), **CLOSE)
    np.testing.assert_allclose(other.adjoint(nu)[0][1], one.adjoint(nu)[0][1], **CLOSE)


def column(layer: AffineMap, j: int) -> list[Fraction]:
    return fractions(layer.to_sparse()[:, [j]].toarray())


def exact_column_error(first: AffineMap, second: AffineMap, merged: AffineMap, j: int) -> Fraction:
    """‖(M − W₂W₁)_:j‖₂² in rational numbers, one of the two a diagonal matrix."""
    if isinstance(first, ChannelAffine):
        scale = Fraction(float(first.to_sparse().diagonal()[j]))
        true = [value * scale for value in column(second, j)]
    else:
        scales = fractions(second.to_sparse().diagonal())
        true = [value * scale for value, scale in zip(column(first, j), scales, strict=True)]
    return sum(((a - b) ** 2 for a, b in zip(true, column(merged, j), strict=True)), Fraction(0))


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_merging_with_channels_charges_what_the_matrix_would(
    geometry: dict[str, object], whole: bool, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored, large = both(rng, geometry, monkeypatch)
    if whole:  # integers: nothing is rounded
        places = stored.stride, stored.padding, stored.dilation, stored.groups
        large = Conv2d(np.rint(4 * stored.weight), np.rint(stored.bias), SHAPE, *places)
        monkeypatch.undo()
        stored = Conv2d(large.weight, large.bias, SHAPE, *places)
        assert (stored.operator, large.operator) == (None, large.operator)
    number = (lambda n: np.rint(4 * rng.normal(size=n))) if whole else (lambda n: rng.normal(size=n))
    before = ChannelAffine(number(4), number(4), SHAPE).with_error(np.full(120, 0.0 if whole else 1e-17), 0.0)
    after = ChannelAffine(number(8), number(8), stored.output_shape)
    for parts in (lambda conv: (before, conv), lambda conv: (conv, after)):
        expected, found = merge(*parts(stored)), merge(*parts(large))
        assert isinstance(found, Conv2d)
        np.testing.assert_array_equal(found.weight, expected.weight)  # type: ignore[attr-defined]
        if whole:
            assert found.column_error is None
            assert found.bias_error == 0.0
            continue
        np.testing.assert_allclose(found.column_error, expected.column_error, rtol=1e-5, atol=1e-100)
        assert found.bias_error == pytest.approx(expected.bias_error, rel=1e-5)
        for j in range(0, 120, 7):
            assert exact_column_error(*parts(stored), found, j) <= Fraction(float(found.column_error[j])) ** 2


def test_a_replay_proves_the_same_without_a_matrix(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    stored, large = both(rng, {"stride": 2}, monkeypatch)
    rows, points = rng.normal(size=(3, stored.output_size)), rng.normal(size=(2, 120))
    one, other = Network([stored]), Network([large])
    assert one.digest == other.digest
    for mine, theirs in zip(replay_margins(other, rows, points), replay_margins(one, rows, points), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-12)
    for mine, theirs in zip(evaluation_errors(other, rows, points), evaluation_errors(one, rows, points), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-9)


def test_columns_of_any_size_have_norms(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convolutions, "MATRIX_ENTRIES", 0)
    for size in (1e200, 1e-200):
        large = Conv2d(size * rng.normal(size=(2, 1, 2, 2)), None, (1, 3, 3))
        norms, expected = large.column_norms[0], column_norms(large.to_sparse())
        assert np.all((expected <= norms * 1.00001) & (norms <= expected * 1.00001))
        assert np.all(norms > 0)


def test_a_file_gives_it_back(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _, large = both(rng, {"padding": 1}, monkeypatch)
    Network([large]).save(tmp_path / "large.npz")
    found = Network.load(tmp_path / "large.npz")
    assert found.digest == Network([large]).digest
    first = found.layers[0]
    assert isinstance(first, Conv2d)
    assert first.operator is not None
