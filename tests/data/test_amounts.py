"""Radii and domains as they are written: fractions rounded once, files checked, keys that tell arrays apart."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.data.amounts import amount, domain_text, keyed, radius_text, read_domain, read_radius


@given(st.integers(0, 10**6), st.integers(1, 10**6))
def test_a_fraction_is_the_nearest_double(over: int, under: int) -> None:
    assert amount("eps", f"{over}/{under}") == float(Fraction(over, under)) == over / under


@pytest.mark.parametrize(
    ("text", "value"), [("0.03", 0.03), ("8/255", 8 / 255), (" 1.5 / 255 ", 1.5 / 255), ("1e-3", 1e-3), ("-1", -1.0)]
)
def test_numbers_as_people_write_them(text: str, value: float) -> None:
    assert amount("eps", text) == value


@pytest.mark.parametrize("text", ["", "x", "1/0", "1/2/3", "8\\255", "0,01", "1_0", "1/" + "9" * 200, "__import__"])
def test_anything_else_is_named(text: str) -> None:
    with pytest.raises(ValueError, match=r"^--eps must be a number or a fraction such as 8/255, got '"):
        amount("--eps", text)


@pytest.mark.parametrize("text", ["1/3e999", "1e-999", "-0.1e-400", "1e-300/1e300"])
def test_what_would_be_rounded_to_0_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^--eps must be 0 or in the range of double precision, got "):
        amount("--eps", text)
    assert [amount("--eps", zero) for zero in ("0", "0.0e5", "0/3", "-0")] == [0.0] * 4


def test_radii_of_a_file(tmp_path: Path) -> None:
    np.save(tmp_path / "eps.npy", np.array([0.1, 0.2]))
    assert read_radius("--eps", str(tmp_path / "eps.npy")).tolist() == [0.1, 0.2]  # type: ignore[union-attr]
    np.save(tmp_path / "bad.npy", np.array([0.1, -0.2]))
    with pytest.raises(ValueError, match=r"--eps: bad.npy must hold radii ≥ 0, got -0.2"):
        read_radius("--eps", str(tmp_path / "bad.npy"))
    np.save(tmp_path / "nan.npy", np.array([0.1, np.nan]))
    with pytest.raises(ValueError, match=r"nan.npy: every number must be finite, got nan at \(1,\)"):
        read_radius("--eps", str(tmp_path / "nan.npy"))
    np.save(tmp_path / "pickle.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"pickle.npy: not an array of numbers"):
        read_radius("--eps", str(tmp_path / "pickle.npy"))
    with pytest.raises(FileNotFoundError, match=r"no .npy file at none.npy"):
        read_radius("--eps", "none.npy")


def test_domains_of_texts_and_files(tmp_path: Path) -> None:
    assert read_domain("--domain", "0,255") == (0.0, 255.0)
    assert read_domain("--domain", "-1/2,1/2") == (-0.5, 0.5)
    np.save(tmp_path / "box.npy", np.array([[0.0, -1.0], [1.0, 3.0]]))
    low, high = read_domain("--domain", str(tmp_path / "box.npy"))
    assert (np.asarray(low).tolist(), np.asarray(high).tolist()) == ([0.0, -1.0], [1.0, 3.0])
    np.save(tmp_path / "flat.npy", np.zeros(4))
    with pytest.raises(ValueError, match=r"flat.npy must have shape \(2, …\), low and high, got \(4,\)"):
        read_domain("--domain", str(tmp_path / "flat.npy"))
    with pytest.raises(ValueError, match="--domain must be LOW,HIGH"):
        read_domain("--domain", "1")


def test_keys_tell_arrays_apart_that_print_alike() -> None:
    """numpy's text of a long array leaves its middle out: two domains would share a stored answer."""
    first, second = np.zeros(5000), np.zeros(5000)
    second[2500] = 1.0
    assert str(first) == str(second)
    assert keyed((first, first)) != keyed((first, second))
    assert keyed((0.0, 1.0)) == (0.0, 1.0)


def test_what_headings_say() -> None:
    assert radius_text(0.03) == "ε = 0.03"
    assert radius_text(np.array([0.1, 0.2])) == "ε per coordinate (0.1 … 0.2)"
    assert [domain_text(d) for d in (None, (0.0, 1.0))] == ["no domain", "domain [0, 1]"]
    assert domain_text((np.array([0.0, -1.0]), np.array([1.0, 3.0]))) == "domain per coordinate (within [-1, 3])"
