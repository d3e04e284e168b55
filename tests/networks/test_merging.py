"""Merging: one map for two, of the most structured kind, and a network's maps for operations in order."""

from __future__ import annotations

import numpy as np
import pytest
from affine_maps import MAKERS, SHAPE, random_conv, random_sparse
from hypothesis import given
from hypothesis import strategies as st
from operations import merge_operations

from toolkit.networks.convolutions import Conv2d
from toolkit.networks.layers import AffineMap, ChannelAffine, Dense, Flatten, ReLU
from toolkit.networks.merging import merge
from toolkit.networks.network import Network


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


@pytest.mark.parametrize("kind", MAKERS)
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


@given(seed=st.integers(0, 2**32 - 1), kinds=st.lists(st.sampled_from("ARF"), min_size=1, max_size=8))
def test_merged_operations_compute_the_operations_in_order(seed: int, kinds: list[str]) -> None:
    rng = np.random.default_rng(seed)
    operations: list[AffineMap | Flatten | ReLU] = [Dense(rng.normal(size=(4, 4)), rng.normal(size=4))]
    for kind in kinds:
        made = {"A": Dense(rng.normal(size=(4, 4)), rng.normal(size=4)), "R": ReLU(), "F": Flatten()}[kind]
        operations.insert(int(rng.integers(0, len(operations) + 1)), made)
    x = rng.normal(size=(6, 4))
    expected = x
    for operation in operations:
        if isinstance(operation, Dense):
            expected = expected @ operation.weight.T + operation.bias
        elif isinstance(operation, ReLU):
            expected = np.maximum(expected, 0)
    np.testing.assert_allclose(Network(merge_operations(operations)).forward(x), expected, rtol=1e-10, atol=1e-10)


def test_consecutive_affine_maps_are_one_layer(rng: np.random.Generator) -> None:
    first, second, third = (Dense(rng.normal(size=(3, 3))) for _ in range(3))
    net = Network(merge_operations([first, second, ReLU(), ReLU(), third]))
    assert net.relu_sizes == (3,)
    np.testing.assert_allclose(net.layers[0].to_sparse().toarray(), second.weight @ first.weight, atol=1e-13)


@pytest.mark.parametrize(
    ("operations", "message"),
    [
        ([ReLU(), Flatten()], "at least one affine map"),
        ([Dense(np.ones((3, 2))), 3], "must be affine maps, Flatten or ReLU, got int"),
    ],
)
def test_what_is_no_list_of_operations_is_refused(operations: list[AffineMap | Flatten | ReLU], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        merge_operations(operations)
