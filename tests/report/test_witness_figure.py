"""The picture of a witness: three panels, a difference enlarged by a round factor that keeps it in range."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.report.witness import LARGEST_ZOOM, witness_figure, zoom


@given(st.floats(1e-6, 1.0), st.floats(0.1, 300.0))
def test_the_factor_is_the_largest_round_one_that_fits(largest: float, span: float) -> None:
    factor = zoom(largest, span)
    assert factor in {base * 10**power for power in range(4) for base in (1, 2, 5)}
    assert factor <= LARGEST_ZOOM
    assert factor == 1 or factor * largest <= span * (1 + 1e-8)
    assert factor == LARGEST_ZOOM or 2.5 * factor * largest >= span * (1 - 1e-8) or factor == 1


def test_no_difference_is_not_enlarged() -> None:
    assert zoom(0.0, 1.0) == 1.0


@pytest.mark.parametrize(
    ("shape", "drawn"), [((1, 4, 4), (4, 4)), ((3, 2, 4), (2, 4, 3)), ((4, 4), (4, 4)), ((16,), (4, 4))]
)
def test_three_panels_of_the_images_shape(
    shape: tuple[int, ...], drawn: tuple[int, ...], rng: np.random.Generator
) -> None:
    image = rng.uniform(size=int(np.prod(shape)))
    point = np.clip(image + rng.uniform(-0.02, 0.02, image.size), 0, 1)
    figure = witness_figure(image, point, shape, ("image: class 3", "unsafe point: class 5"))
    assert [axis.get_title() for axis in figure.axes[:2]] == ["image: class 3", "unsafe point: class 5"]
    assert figure.axes[2].get_title() == "difference × 50, grey: 0"
    arrays = [np.asarray(axis.images[0].get_array()) for axis in figure.axes]
    assert [array.shape for array in arrays] == [drawn] * 3
    assert all(0 <= array.min() <= array.max() <= 1 for array in arrays)
    flat = arrays[0] if arrays[0].ndim == 2 else np.moveaxis(arrays[0], 2, 0)
    np.testing.assert_allclose(flat.ravel(), image)


def test_what_is_no_picture_is_refused() -> None:
    for shape in ((2, 2, 4), (15,), (5, 1, 1, 3)):
        with pytest.raises(ValueError, match=r"a picture has 1 or 3 channels of height×width, the network takes"):
            witness_figure(np.zeros(int(np.prod(shape))), np.zeros(int(np.prod(shape))), shape)
