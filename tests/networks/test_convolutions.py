"""Convolutions agree with torch, in values and, with torch weights, in gradients; impossible geometries are refused."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from affine_maps import GEOMETRIES, MAKERS, SHAPE, random_conv

from toolkit.networks.convolutions import Conv2d
from toolkit.networks.layers import AffineMap, Dense

BAD_KERNEL = np.ones((1, 1, 2, 2))
BAD_KERNEL[0, 0, 1, 0] = -np.inf


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_convolution_agrees_with_torch(geometry: dict[str, object], rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    conv = random_conv(rng, geometry)
    twin = torch.nn.Conv2d(4, 8, (3, 2), **geometry, dtype=torch.float64)
    with torch.no_grad():
        twin.weight.copy_(torch.tensor(conv.weight))
        twin.bias.copy_(torch.tensor(conv.bias))
        images = rng.normal(size=(3, *SHAPE))
        expected = twin(torch.as_tensor(images)).numpy()
    assert expected.shape[1:] == conv.output_shape
    np.testing.assert_allclose(conv.forward(images.reshape(3, -1)), expected.reshape(3, -1), rtol=0, atol=1e-12)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", ["dense", *(f"conv {geometry}" for geometry in GEOMETRIES)])
def test_torch_weights_give_the_numpy_values_and_gradients(kind: str, bias: bool, rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    layer = MAKERS[kind](rng)
    assert isinstance(layer, Dense | Conv2d)
    weight = torch.tensor(layer.weight, requires_grad=True)
    shift = torch.tensor(layer.bias) if bias else None
    if isinstance(layer, Conv2d):
        geometry = layer.shape, layer.stride, layer.padding, layer.dilation, layer.groups
        twin: AffineMap = Conv2d(weight, shift, *geometry)
        layer = layer if bias else Conv2d(layer.weight, None, *geometry)
    else:
        twin = Dense(weight, shift)
        layer = layer if bias else Dense(layer.weight)
    x, nu = rng.normal(size=(2, 3, layer.input_size)), rng.normal(size=(2, 3, layer.output_size))
    forward, back = twin.forward(torch.tensor(x)), twin.adjoint(torch.tensor(nu))
    np.testing.assert_allclose(forward.detach().numpy(), layer.forward(x), rtol=0, atol=1e-11)
    np.testing.assert_allclose(back.detach().numpy(), layer.adjoint(nu), rtol=0, atol=1e-11)
    # ⟨Wx, ν⟩ is linear in W, so its gradient times W is ⟨Wx, ν⟩ itself.
    value = (twin.linear(torch.tensor(x)) * torch.tensor(nu)).sum()
    (gradient,) = torch.autograd.grad(value, weight)
    np.testing.assert_allclose(float((gradient * weight).sum().detach()), float(value.detach()), rtol=1e-10)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Conv2d(BAD_KERNEL, None, (1, 4, 4)), r"got -inf at index \(0, 0, 1, 0\)"),
        (lambda: Conv2d(np.ones((1, 2, 2, 2)), None, (1, 4, 4)), "groups=1 does not fit 1 input channels"),
        (lambda: Conv2d(np.ones((3, 1, 2, 2)), None, (2, 4, 4), groups=2), "does not fit"),
        (lambda: Conv2d(np.ones((1, 1, 5, 5)), None, (1, 4, 4)), "larger than the padded input"),
        (lambda: Conv2d(np.ones((2, 1, 2, 2)), np.ones(3), (1, 4, 4)), "2 or 18 entries, got 3"),
        (lambda: Conv2d(np.ones((1, 1, 2, 2)), None, (1, 4, 4), stride=0), "stride must be an integer ≥ 1"),
        (lambda: Conv2d(np.ones((1, 1, 2, 2)), None, (1, 4, 4), padding=(1, -1)), "padding must be an integer ≥ 0"),
    ],
)
def test_bad_convolutions_are_refused(make: Callable[[], AffineMap], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
