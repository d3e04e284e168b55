"""Robust losses are the certifying functions on torch tensors: same numbers, sound, with right gradients."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch: pip install relugap[train]")

from toolkit.networks.convolutions import Conv2d  # noqa: E402
from toolkit.networks.layers import Dense  # noqa: E402
from toolkit.networks.network import Network  # noqa: E402
from toolkit.problems.input_sets import LinfBall  # noqa: E402
from toolkit.training.bounds import batch_bounds, input_balls  # noqa: E402
from toolkit.training.losses import (  # noqa: E402
    LOSSES,
    Perturbation,
    dual,
    dual_margin,
    fgsm_points,
    interval,
    pgd_points,
    robust_margins,
    standard,
)
from toolkit.training.projections import estimated_bounds  # noqa: E402
from toolkit.training.spec import LOSS_NAMES, LayerSpec  # noqa: E402
from toolkit.training.trainable import as_torch, frozen, parameters, trainable_network  # noqa: E402
from toolkit.verify.layer_bounds import layer_bounds  # noqa: E402
from toolkit.verify.margins import margins  # noqa: E402

DENSE = tuple(LayerSpec(dense=width) for width in (9, 8, 7))
CONV = (  # two convolutions whose patches overlap the padding, one that reads a part of its image, then dense layers
    LayerSpec(conv=3, kernel=4, stride=2, padding=1),
    LayerSpec(conv=4, kernel=3, stride=3, padding=2),
    LayerSpec(conv=3, kernel=2),
    LayerSpec(dense=10),
    LayerSpec(dense=5),
)
BLOCK = (LayerSpec(conv=2, padding=1), LayerSpec(conv=2, padding=1))
RESIDUAL = (  # a skip of the input, a projected one that halves the image, one past dense layers
    LayerSpec(residual=BLOCK),
    LayerSpec(residual=(LayerSpec(conv=3, stride=2, padding=1), LayerSpec(conv=3, padding=1)), skip="projection"),
    LayerSpec(dense=7),
    LayerSpec(residual=(LayerSpec(dense=5), LayerSpec(dense=7))),
)
POOLED = (  # nine values to a maximum, a convolution and a skip that read it, maxima that the logits read
    LayerSpec(conv=2, kernel=3, padding=1),
    LayerSpec(max_pool=3),
    LayerSpec(residual=BLOCK),
    LayerSpec(max_pool=2),
)
SHAPES = {
    "dense": (DENSE, (1, 5, 5)),
    "conv": (CONV, (2, 10, 9)),
    "residual": (RESIDUAL, (2, 5, 4)),
    "pooled": (POOLED, (1, 6, 6)),
}


def _network(kind, seed=0, dtype=torch.float64):
    hidden, shape = SHAPES[kind]
    return trainable_network(hidden, shape, 4, seed, dtype)


def _batch(network, count=3, seed=0):
    rng = np.random.default_rng(seed)
    x = torch.tensor(rng.uniform(0, 1, (count, network.input_size)))
    return x, torch.tensor(rng.integers(0, network.output_size, count))


def test_every_loss_name_of_a_spec_has_its_loss():
    assert tuple(LOSSES) == LOSS_NAMES


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("domain", [None, (0.0, 1.0)])
@pytest.mark.parametrize("method", ["interval", "dual"])
@pytest.mark.parametrize("eps", [0.02, 0.3])
def test_torch_bounds_and_margins_equal_numpy(kind, domain, method, eps):
    network = _network(kind)
    certifying = frozen(network)
    x, y = _batch(network)
    bounds = batch_bounds(network, input_balls(x, eps, domain), method)
    found = robust_margins(network, x, y, Perturbation(eps, domain), method).detach().numpy()
    for i in range(len(x)):
        ball, label = LinfBall(x[i].numpy(), eps, domain), int(y[i])
        wanted = layer_bounds(certifying, ball, ("interval",) if method == "interval" else ("interval", "dual"))
        for k in range(len(wanted)):
            assert np.allclose(bounds.lower[k][i].detach(), wanted.lower[k], rtol=0, atol=1e-10)
            assert np.allclose(bounds.upper[k][i].detach(), wanted.upper[k], rtol=0, atol=1e-10)
        exact = [bound.lower for bound in margins(certifying, ball, label, method, wanted)]
        assert np.allclose(np.delete(found[i], label), exact, rtol=0, atol=1e-10)
        assert found[i, label] == 0.0


def _move(weights, direction, step):
    with torch.no_grad():
        for tensor, change in zip(weights, direction, strict=True):
            tensor += step * change


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("loss", [dual, dual_margin, interval])
def test_gradients_agree_with_finite_differences(kind, loss):
    """Bounds l,u carry gradients too: a loss that detached them would fail here."""
    network = _network(kind, seed=7)  # no bound crosses a kink on the way
    x, y = _batch(network, 2, seed=3)
    weights = parameters(network)
    region = Perturbation(0.1, (0.0, 1.0))
    gradients = torch.autograd.grad(loss(network, x, y, region).sum(), weights)
    rng = np.random.default_rng(0)
    for _ in range(3):  # directional derivatives: every weight takes part in each
        direction = [torch.tensor(rng.normal(size=tuple(tensor.shape))) for tensor in weights]
        slope = sum((g * d).sum() for g, d in zip(gradients, direction, strict=True))
        ends = []
        for step in (1e-6, -1e-6):
            _move(weights, direction, step)
            ends.append(loss(network, x, y, region).sum())
            _move(weights, direction, -step)
        assert float((ends[0] - ends[1]).detach() / 2e-6) == pytest.approx(float(slope), rel=2e-4, abs=1e-6)


def test_gradcheck_of_the_dual_loss():
    torch.manual_seed(0)
    shapes = [(4, 3), (4,), (3, 4), (3,), (3, 3), (3,)]
    leaves = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    x, y = torch.rand(2, 3, dtype=torch.float64), torch.tensor([0, 2])

    def value(*weights):
        network = Network([Dense(weights[i], weights[i + 1]) for i in (0, 2, 4)])
        return dual(network, x, y, Perturbation(0.15, (0.0, 1.0)))

    assert torch.autograd.gradcheck(value, leaves)


def test_gradcheck_of_the_dual_loss_through_convolutions():
    torch.manual_seed(1)
    shapes = [(2, 1, 3, 3), (2,), (2, 2, 2, 2), (2,), (3, 8), (3,)]
    leaves = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    x, y = torch.rand(2, 25, dtype=torch.float64), torch.tensor([0, 2])

    def value(*weights):
        first = Conv2d(weights[0], weights[1], (1, 5, 5), 2, 1)
        second = Conv2d(weights[2], weights[3], (2, 3, 3))
        return dual(Network([first, second, Dense(weights[4], weights[5])]), x, y, Perturbation(0.1))

    assert torch.autograd.gradcheck(value, leaves, fast_mode=True)


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("loss", [dual, interval])
def test_robust_cross_entropy_bounds_the_loss_at_every_point(kind, loss):
    network = _network(kind, seed=2)
    x, y = _batch(network)
    region = Perturbation(0.2, (0.0, 1.0), torch.Generator().manual_seed(0))
    bound = loss(network, x, y, region)
    balls = input_balls(x, region.eps, region.domain)
    points = [pgd_points(network, x, y, region), fgsm_points(network, x, y, region), x]
    points += [torch.lerp(balls.ball_lower, balls.ball_upper, torch.rand_like(x)) for _ in range(20)]
    for point in points:
        assert bool((standard(network, point, y, region) <= bound + 1e-12).all())


def test_the_margin_loss_is_zero_exactly_where_the_dual_certifies():
    network = _network("dense", seed=5)
    x, _ = _batch(network, 40)
    y = network.forward(x).argmax(-1)
    y[:5] = (y[:5] + 1) % 4
    loss = dual_margin(network, x, y, Perturbation(0.02)).detach().numpy()
    certified = [
        all(b.lower >= 0 for b in margins(frozen(network), LinfBall(x[i].numpy(), 0.02), int(y[i]), "dual"))
        for i in range(len(x))
    ]
    assert np.array_equal(loss == 0, certified)
    assert 0 < sum(certified) < len(x)


def test_attack_points_stay_in_the_ball_and_raise_the_loss():
    network = _network("conv", seed=3)
    x, y = _batch(network, 20)
    region = Perturbation(0.1, (0.0, 1.0), torch.Generator().manual_seed(0))
    clean = standard(network, x, y, region)
    for attack in (fgsm_points, pgd_points):
        points = attack(network, x, y, region)
        assert float((points - x).abs().max()) <= 0.1 + 1e-12
        assert float(points.min()) >= 0.0
        assert float(points.max()) <= 1.0
        assert not points.requires_grad
        assert bool(standard(network, points, y, region).mean() > clean.mean())


def test_fgsm_is_exact_on_a_linear_classifier():
    weight = torch.tensor([[1.0, -2.0, 0.5], [-1.0, 1.0, 2.0]], dtype=torch.float64, requires_grad=True)
    network = Network([Dense(weight, torch.zeros(2, dtype=torch.float64))])
    x, y = torch.tensor([[0.5, 0.5, 0.5]], dtype=torch.float64), torch.tensor([0])
    point = fgsm_points(network, x, y, Perturbation(0.1))
    worst = robust_margins(network, x, y, Perturbation(0.1))[0, 1].detach()
    logits = network.forward(point)[0].detach()
    assert float(logits[0] - logits[1]) == pytest.approx(float(worst), abs=1e-12)


@pytest.mark.parametrize("kind", SHAPES)
def test_projections_estimate_the_width_of_the_dual_range(kind):
    """Many projections come close to the exact chain wherever that needs the dual; the seed decides the draws."""
    network = _network(kind, seed=4)
    x, _ = _batch(network, 2)
    balls = input_balls(x, 0.1, None)
    exact = batch_bounds(network, balls, "dual")
    estimate = estimated_bounds(network, balls, 4001, torch.Generator().manual_seed(0))
    compared = 0
    for k in range(1, len(exact.lower)):
        used = (exact.lower[k] < 0) & (exact.upper[k] > 0)  # stable neurons may keep their interval
        ratio = ((estimate.upper[k] - estimate.lower[k]) / (exact.upper[k] - exact.lower[k]))[used]
        compared += ratio.numel()
        assert bool(((ratio - 1).abs() < 0.15).all())
    assert compared > 0
    rough = [estimated_bounds(network, balls, 25, torch.Generator().manual_seed(s)).upper[-1] for s in (0, 0, 1)]
    assert torch.equal(rough[0], rough[1])
    assert not torch.equal(rough[0], rough[2])


def test_layers_that_cannot_be_trained_are_named():
    from toolkit.networks.layers import ChannelAffine

    scaled = Network([ChannelAffine(np.ones(1), np.zeros(1), (1, 2, 2)), Dense(np.ones((2, 4)))])
    with pytest.raises(ValueError, match="layer 0 must be Dense or Conv2d to be trained, got ChannelAffine"):
        as_torch(scaled)
    with pytest.raises(ValueError, match="cannot follow a dense layer"):
        trainable_network((LayerSpec(dense=3), LayerSpec(conv=2)), (1, 5, 5), 2, 0)
