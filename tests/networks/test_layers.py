"""Affine maps: forward, adjoint, sparse form, restriction and merging agree with each other and with torch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from toolkit.networks.layers import AffineMap, ChannelAffine, Conv2d, Dense, Sparse, merge

SHAPE = (4, 6, 5)  # what the maps below take: 120 features
GEOMETRIES = [
    {},
    {"stride": 2, "padding": 1},
    {"stride": (1, 2), "padding": (2, 0)},
    {"dilation": (2, 1), "padding": 1},
    {"groups": 2, "padding": 1, "stride": 2},
    {"groups": 4, "dilation": 2, "padding": 2},
]


def random_conv(rng: np.random.Generator, geometry: dict[str, object], spatial_bias: bool = False) -> Conv2d:
    groups = int(geometry.get("groups", 1))  # type: ignore[call-overload]
    weight = rng.normal(size=(8, SHAPE[0] // groups, 3, 2))
    conv = Conv2d(weight, rng.normal(size=8), SHAPE, **geometry)  # type: ignore[arg-type]
    if spatial_bias:
        return Conv2d(weight, rng.normal(size=conv.output_size), SHAPE, **geometry)  # type: ignore[arg-type]
    return conv


def random_sparse(rng: np.random.Generator, outputs: int, inputs: int) -> Sparse:
    return Sparse(sp.random_array((outputs, inputs), density=0.1, rng=rng), rng.normal(size=outputs))


MAKERS: dict[str, Callable[[np.random.Generator], AffineMap]] = {
    "dense": lambda rng: Dense(rng.normal(size=(7, 120)), rng.normal(size=7)),
    "dense without bias": lambda rng: Dense(rng.normal(size=(7, 120))),
    "sparse": lambda rng: random_sparse(rng, 9, 120),
    "channel": lambda rng: ChannelAffine(rng.normal(size=4), rng.normal(size=4), SHAPE),
    "channel of flat features": lambda rng: ChannelAffine(rng.normal(size=120), rng.normal(size=120), (120, 1, 1)),
    "conv with a bias per place": lambda rng: random_conv(rng, {"padding": 1}, spatial_bias=True),
} | {f"conv {geometry}": (lambda rng, g=geometry: random_conv(rng, g)) for geometry in GEOMETRIES}

kinds = pytest.mark.parametrize("kind", MAKERS)


def matrix(layer: AffineMap) -> np.ndarray:
    """W by its columns: the map applied to the identity."""
    return np.asarray(layer.linear(np.eye(layer.input_size)).T)


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


def followers(size: int, shape: tuple[int, ...], rng: np.random.Generator) -> dict[str, AffineMap]:
    """One map of every kind that takes `size` features, of an image `shape` where that is three numbers."""
    made: dict[str, AffineMap] = {
        "dense": Dense(rng.normal(size=(6, size)), rng.normal(size=6)),
        "sparse": random_sparse(rng, 6, size),
        "channel of flat features": ChannelAffine(rng.normal(size=size), rng.normal(size=size), (size, 1, 1)),
    }
    if len(shape) == 3:
        channels, height, width = shape
        made["channel"] = ChannelAffine(rng.normal(size=channels), rng.normal(size=channels), (channels, height, width))
        weight = rng.normal(size=(4, channels // 2, 2, 2))
        made["grouped conv"] = Conv2d(weight, rng.normal(size=4), (channels, height, width), 1, 1, 1, groups=2)
    return made


@kinds
def test_merge_is_composition_for_every_pair(kind: str, rng: np.random.Generator) -> None:
    first = MAKERS[kind](rng)
    shape = first.output_shape if isinstance(first, Conv2d) else SHAPE if kind == "channel" else ()
    x = rng.normal(size=(3, first.input_size))
    for name, second in followers(first.output_size, shape, rng).items():
        merged = merge(first, second)
        expected = second.forward(first.forward(x))
        np.testing.assert_allclose(
            merged.forward(x), expected, rtol=0, atol=1e-12 * np.abs(expected).max(), err_msg=f"{kind}, then {name}"
        )
        nu = rng.normal(size=merged.output_size)
        np.testing.assert_allclose(merged.adjoint(nu), first.adjoint(second.adjoint(nu)), rtol=1e-9, atol=1e-9)


def test_merge_keeps_convolutions_and_dense_maps_what_they_are(rng: np.random.Generator) -> None:
    channel = ChannelAffine(rng.normal(size=4), rng.normal(size=4), SHAPE)
    conv = random_conv(rng, {"padding": 1, "groups": 2})
    after = ChannelAffine(rng.normal(size=8), rng.normal(size=8), conv.output_shape)
    assert merge(conv, after).bias.shape == (8,)  # type: ignore[attr-defined]
    normalised = merge(channel, conv)
    assert isinstance(normalised, Conv2d)
    assert normalised.bias.shape == (conv.output_size,)  # zero padding sees the shift inside the image only
    unpadded = merge(channel, random_conv(rng, {}))
    assert isinstance(unpadded, Conv2d)
    np.testing.assert_allclose(unpadded.bias_vector, unpadded.forward(np.zeros(120)))
    thin = Dense(np.eye(3, 120))
    assert isinstance(merge(channel, thin), Dense)
    assert isinstance(merge(thin, ChannelAffine([2.0, 3.0, 4.0], np.ones(3), (3, 1, 1))), Dense)
    assert isinstance(merge(thin, thin.restrict(None, np.arange(3))), Dense)


def test_merge_refuses_sizes_that_do_not_chain(rng: np.random.Generator) -> None:
    with pytest.raises(ValueError, match="a map to 3 features into one from 4"):
        merge(Dense(np.ones((3, 2))), Dense(np.ones((1, 4))))


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
BAD_KERNEL = np.ones((1, 1, 2, 2))
BAD_KERNEL[0, 0, 1, 0] = -np.inf


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Dense(BAD_WEIGHT), r"Dense weight must be finite, got nan at index \(1, 2\)"),
        (lambda: Dense(np.ones((2, 3)), [0.0, np.inf]), r"Dense bias must be finite, got inf at index \(1,\)"),
        (lambda: Dense(np.ones(3)), r"Dense weight must have 2 axes, got shape \(3,\)"),
        (lambda: Dense(np.ones((2, 3)), np.ones(3)), r"bias must have shape \(2,\) for weight \(2, 3\), got \(3,\)"),
        (lambda: Conv2d(BAD_KERNEL, None, (1, 4, 4)), r"got -inf at index \(0, 0, 1, 0\)"),
        (lambda: Conv2d(np.ones((1, 2, 2, 2)), None, (1, 4, 4)), "groups=1 does not fit 1 input channels"),
        (lambda: Conv2d(np.ones((3, 1, 2, 2)), None, (2, 4, 4), groups=2), "does not fit"),
        (lambda: Conv2d(np.ones((1, 1, 5, 5)), None, (1, 4, 4)), "larger than the padded input"),
        (lambda: Conv2d(np.ones((2, 1, 2, 2)), np.ones(3), (1, 4, 4)), "2 or 18 entries, got 3"),
        (lambda: Conv2d(np.ones((1, 1, 2, 2)), None, (1, 4, 4), stride=0), "stride must be an integer ≥ 1"),
        (lambda: Conv2d(np.ones((1, 1, 2, 2)), None, (1, 4, 4), padding=(1, -1)), "padding must be an integer ≥ 0"),
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
