"""Which type a search computes in, and that tensors hold what they were made of."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from pieces import scaled_network, small_problem

from toolkit.problems.problem import Problem
from toolkit.problems.settings import Settings
from toolkit.search.array_makers import fits_float32, fitting_maker, in_float32, in_float64, in_torch, on_host
from toolkit.search.dual_function import DualFunction
from toolkit.search.sign_search import search_signs
from toolkit.verify.layer_bounds import layer_bounds


def test_numbers_fit_float32_by_the_largest_of_each_array() -> None:
    plain = np.array([1.0, -3.0, 1e-40])
    assert fits_float32([plain, sp.csr_array(np.eye(3)), np.zeros(4), np.zeros(0), np.array([np.inf, 1.0])])
    for wrong in (1e20, -1e20, 1e-20):
        assert not fits_float32([plain, np.array([wrong, 0.0])])
        assert not fits_float32([sp.csr_array(np.diag([wrong, 0.0]))])
    assert not fits_float32([np.array([-np.inf, 1e20])])


@pytest.mark.parametrize("factor", [1.0, 1e30, 1e-30, 1e100, 1e-100])
def test_a_network_of_odd_scale_is_searched_in_float64(factor: float) -> None:
    """The maps' factors cancel, so g is the same whatever they are."""
    plain = small_problem(0)
    network = scaled_network(plain.network, (factor, 1.0, 1.0))
    rows = plain.rows
    problem = Problem.of(network, plain.input_set, rows, layer_bounds(network, plain.input_set))
    function = DualFunction(problem, None)
    assert function.make is (in_float32 if factor == 1.0 else in_float64)
    value = function.parts().values(function.make(np.ones((function.size, 3))))
    assert np.all(np.isfinite(value))
    assert np.all(value <= problem.replay(problem.input_set.sample(300)).min(axis=0) + 1e-5 * (1 + np.abs(value)))


def test_tensors_hold_the_numbers_of_arrays_and_sparse_matrices() -> None:
    torch = pytest.importorskip("torch")
    values = np.arange(12.0).reshape(3, 4)
    for dtype in ("float32", "float64"):
        make = in_torch("cpu", dtype)
        assert make(values).dtype == getattr(torch, dtype)
        np.testing.assert_array_equal(on_host(make(values.T[::-1])), values.T[::-1])
        np.testing.assert_array_equal(on_host(make(np.broadcast_to(np.float64(2.0), (2, 2)))), np.full((2, 2), 2.0))
        assert make(np.zeros(())).shape == ()
        columns = make(values.T)
        np.testing.assert_array_equal(on_host(make(sp.csr_array(values)) @ columns), values @ values.T)
    moved = make(values)
    moved[0, 0] = 7.0
    assert values[0, 0] == 0.0
    with pytest.raises(ValueError, match="float16"):
        in_torch("cpu", "float16")  # type: ignore[arg-type]


@pytest.mark.parametrize("device", ["nonsense", "", "meta", "hpu", "cuda:abc"])
def test_devices_that_are_not_there_are_named_in_one_line(device: str) -> None:
    pytest.importorskip("torch")
    with pytest.raises(
        ValueError, match=f"^device '{device}' is not one that torch has here .*; allowed: 'cpu'"
    ) as caught:
        in_torch(device)
    assert len(str(caught.value)) < 350


def test_operators_without_a_matrix_multiply_on_the_host() -> None:
    pytest.importorskip("torch")

    class Doubling:
        def __matmul__(self, columns: np.ndarray) -> np.ndarray:
            return 2 * columns

    values = np.arange(6.0).reshape(2, 3)
    make = in_torch()
    np.testing.assert_array_equal(on_host(make(Doubling()) @ make(values)), 2 * values)
    assert isinstance(in_float32(Doubling()), Doubling)
    assert isinstance(in_float64(Doubling()), Doubling)


def test_a_maker_fits_the_numbers_and_the_device() -> None:
    small, large = np.array([1.0, -2.0]), np.array([1e30])
    assert fitting_maker([small])(small).dtype == np.float32
    assert fitting_maker([small, large])(small).dtype == np.float64
    pytest.importorskip("torch")
    with pytest.raises(
        ValueError, match=r"device 'nowhere' is not one that torch has here .*allowed: 'cpu', or a name"
    ):
        fitting_maker([small], "nowhere")


def test_a_search_on_a_device_that_is_not_there_says_so() -> None:
    pytest.importorskip("torch")
    problem = small_problem(3, (3, 5, 4, 2), settings=Settings(stop_at=0.0, device="nowhere"))
    with pytest.raises(ValueError, match="device 'nowhere' is not one that torch has here"):
        search_signs(problem)
