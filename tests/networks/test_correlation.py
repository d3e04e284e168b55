"""A correlation's passes, rows and counts are those of the matrix that its definition writes out, in any tiles."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.networks import correlation as module
from toolkit.networks.convolutions import Conv2d
from toolkit.networks.correlation import Correlation, matrix_rows, row_peaks, tap_counts


@st.composite
def correlations(draw: st.DrawFn) -> Correlation:
    """Small ones of any geometry, some of which read padding only, or leave the image's end unread."""
    numbers = st.integers(1, 3)
    groups, per_group, per_out = (draw(st.integers(1, 2)) for _ in range(3))
    kernel = draw(numbers), draw(numbers)
    stride, dilation = (draw(numbers), draw(numbers)), (draw(numbers), draw(numbers))
    padding = draw(st.integers(0, 4)), draw(st.integers(0, 4))
    least = [d * (k - 1) + 1 - 2 * p for d, k, p in zip(dilation, kernel, padding, strict=True)]
    height, width = (max(1, size) + draw(st.integers(0, 4)) for size in least)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    weight = rng.integers(-4, 5, (groups * per_out, per_group, *kernel)).astype(np.float64)
    layer = Conv2d(weight, None, (groups * per_group, height, width), stride, padding, dilation, groups)
    return Correlation(layer.weight, layer.shape, layer.output_shape, stride, padding, dilation, groups)


def written_out(own: Correlation) -> tuple[np.ndarray, np.ndarray]:
    """The matrix, and how many taps made each of its entries: at most one."""
    size = math.prod(own.output_shape), math.prod(own.shape)
    matrix, taps = np.zeros(size), np.zeros(size, dtype=np.int64)
    (channels, height, width), (_, rows, columns) = own.output_shape, own.shape
    _, per_group, kernel_h, kernel_w = own.weight.shape
    for o, i, j, c, p, q in itertools.product(*map(range, (channels, height, width, per_group, kernel_h, kernel_w))):
        row = i * own.stride[0] - own.padding[0] + p * own.dilation[0]
        column = j * own.stride[1] - own.padding[1] + q * own.dilation[1]
        if 0 <= row < rows and 0 <= column < columns:
            channel = o // (channels // own.groups) * per_group + c
            place = (o * height + i) * width + j, (channel * rows + row) * columns + column
            matrix[place] = own.weight[o, c, p, q]
            taps[place] += 1
    return matrix, taps


@given(own=correlations(), entries=st.sampled_from([1, 7, 40, 10_000]), seed=st.integers(0, 2**32 - 1))
def test_passes_and_rows_are_those_of_the_matrix(own: Correlation, entries: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    matrix, taps = written_out(own)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "PATCH_ENTRIES", entries)
        patched.setattr(module, "BLOCK_ENTRIES", entries)
        x, nu = (rng.integers(-9, 10, (2, n)).astype(np.float64) for n in (matrix.shape[1], matrix.shape[0]))
        np.testing.assert_array_equal(own.forward(x), x @ matrix.T)  # integers: every order of summation is exact
        np.testing.assert_array_equal(own.adjoint(nu), nu @ matrix)
        chosen = rng.integers(0, matrix.shape[0], 5)
        for rows, index in ((matrix_rows(own), np.arange(matrix.shape[0])), (matrix_rows(own, chosen), chosen)):
            rows.check_format(full_check=True)
            assert rows.has_sorted_indices
            assert rows.nnz == taps[index].sum()
            np.testing.assert_array_equal(rows.toarray(), matrix[index])
    (tall, above), (wide, beside) = tap_counts(own, 0), tap_counts(own, 1)
    per_row = own.weight.shape[1] * np.tile(np.outer(tall, wide).ravel(), own.output_shape[0])
    np.testing.assert_array_equal(per_row, taps.sum(axis=1))
    assert own.weight.shape[0] // own.groups * above * beside == taps.sum(axis=0).max()
    np.testing.assert_array_equal(row_peaks(own), np.abs(matrix).max(axis=1))
    assert own.taps >= taps.sum()


def test_a_matrix_that_does_not_fit_is_refused_before_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST_MATRIX", 99)
    own = Correlation(np.ones((4, 1, 1, 1)), (1, 5, 5), (4, 5, 5), (1, 1), (0, 0), (1, 1), 1)
    with pytest.raises(ValueError, match="may have at most 99 entries, got 100"):
        matrix_rows(own)
    assert matrix_rows(own, np.arange(99)).nnz == 99
