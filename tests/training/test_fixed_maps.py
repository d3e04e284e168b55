"""Maps that are not trained: products of scipy's matrices on tensors, adjoint to one another, with right gradients."""

import numpy as np
import pytest
import scipy.sparse as sp

torch = pytest.importorskip("torch", reason="training needs torch: pip install relugap[train]")

from toolkit.networks.convolutions import Conv2d  # noqa: E402
from toolkit.networks.layers import ChannelAffine, Dense  # noqa: E402
from toolkit.training.fixed_maps import Composed, FixedMap, magnitude, unbiased  # noqa: E402

MATRIX = np.array([[0.0, 1.0, 0.0, -1.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
SELECTION = np.array([[0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])


def _fixed(matrix, bias=None, dtype=torch.float64):
    zeros = torch.zeros(len(matrix), dtype=dtype)
    return FixedMap(sp.csr_array(matrix), zeros if bias is None else torch.tensor(bias, dtype=dtype))


def _tensor(rng, *shape):
    return torch.tensor(rng.normal(size=shape), requires_grad=True)


def test_a_fixed_map_is_its_matrix_on_any_leading_axes(rng):
    layer = _fixed(MATRIX, [1.0, 2.0, 3.0])
    x, nu = _tensor(rng, 2, 5, 4), _tensor(rng, 2, 5, 3)
    assert np.allclose(layer.forward(x).detach(), x.detach().numpy() @ MATRIX.T + [1.0, 2.0, 3.0])
    assert np.allclose(layer.adjoint(nu).detach(), nu.detach().numpy() @ MATRIX)
    assert layer.linear(x[0, 0]).shape == (3,)
    assert torch.autograd.gradcheck(layer.linear, [x])
    assert torch.autograd.gradcheck(layer.adjoint, [nu])
    assert np.array_equal(layer.to_sparse().toarray(), MATRIX)


@pytest.mark.parametrize("kind", ["dense", "conv"])
def test_a_composed_map_is_the_layer_behind_its_selection(rng, kind):
    if kind == "dense":
        trained = Dense(_tensor(rng, 3, 2), _tensor(rng, 3))
    else:
        trained = Conv2d(_tensor(rng, 3, 2, 1, 1), _tensor(rng, 3), (2, 1, 1))
    layer = Composed(_fixed(SELECTION), trained)
    whole = trained.weight.detach().numpy().reshape(3, 2) @ SELECTION
    x, nu = _tensor(rng, 5, 4), _tensor(rng, 5, 3)
    assert np.allclose(layer.forward(x).detach(), x.detach().numpy() @ whole.T + trained.bias.detach().numpy())
    assert np.allclose(layer.adjoint(nu).detach(), nu.detach().numpy() @ whole)
    assert np.allclose(magnitude(layer).linear(x).detach(), x.detach().numpy() @ abs(whole).T)
    (gradient,) = torch.autograd.grad(layer.linear(x).sum(), trained.weight)
    assert gradient.abs().min() > 0


def test_magnitudes_and_maps_without_bias(rng):
    fixed = _fixed(MATRIX)
    x = _tensor(rng, 4)
    assert np.allclose(magnitude(fixed).linear(x).detach(), abs(MATRIX) @ x.detach().numpy())
    for layer in (Dense(_tensor(rng, 3, 2), _tensor(rng, 3)), Conv2d(_tensor(rng, 3, 1, 2, 2), None, (1, 3, 3))):
        without = unbiased(layer)
        assert without.weight is layer.weight
        assert not without.bias_vector.any()
        assert not without.bias.requires_grad


def test_maps_that_do_not_fit_are_named(rng):
    with pytest.raises(ValueError, match=r"FixedMap bias must have shape \(3,\), got \(2,\)"):
        FixedMap(sp.csr_array(MATRIX), torch.zeros(2))
    with pytest.raises(ValueError, match="the selection gives 3 features, the layer takes 2"):
        Composed(_fixed(MATRIX), Dense(_tensor(rng, 3, 2)))
    with pytest.raises(ValueError, match="layers must be Dense or Conv2d to be trained, got ChannelAffine"):
        magnitude(ChannelAffine(np.ones(1), np.zeros(1), (1, 2, 2)))
