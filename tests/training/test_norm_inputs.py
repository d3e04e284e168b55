"""Robust training over ℓ1 and ℓ2 balls: the same numbers as the rungs that certify, right gradients, points inside."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch: pip install relugap[train]")

from toolkit.data.datasets import load_dataset  # noqa: E402
from toolkit.problems.input_sets import make_ball  # noqa: E402
from toolkit.training.bounds import batch_bounds, input_balls  # noqa: E402
from toolkit.training.loop import train  # noqa: E402
from toolkit.training.losses import (  # noqa: E402
    Perturbation,
    dual,
    fgsm_points,
    interval,
    pgd_points,
    robust_margins,
    standard,
)
from toolkit.training.norm_inputs import ball_range  # noqa: E402
from toolkit.training.spec import LayerSpec, NetworkSpec  # noqa: E402
from toolkit.training.trainable import as_torch, frozen, parameters, trainable_network  # noqa: E402
from toolkit.verify.layer_bounds import layer_bounds  # noqa: E402
from toolkit.verify.margins import margins  # noqa: E402

CONV = (LayerSpec(conv=3, kernel=4, stride=2, padding=1), LayerSpec(conv=3, kernel=2), LayerSpec(dense=6))
BLOCK = LayerSpec(residual=(LayerSpec(conv=2, padding=1), LayerSpec(conv=1, padding=1)))  # its skip reads the input
SHAPES = {
    "dense": ((LayerSpec(dense=9), LayerSpec(dense=7)), (1, 4, 4)),
    "conv": (CONV, (2, 7, 6)),
    "residual": ((BLOCK, LayerSpec(dense=6)), (1, 4, 4)),
}
NORMS = [("l1", 0.5), ("l2", 0.25), ("l2", 3.0)]


def question(kind, seed=0, count=2):
    hidden, shape = SHAPES[kind]
    network = trainable_network(hidden, shape, 4, seed, torch.float64)
    rng = np.random.default_rng(seed)
    x = torch.tensor(rng.uniform(0, 1, (count, network.input_size)))
    return network, x, torch.tensor(rng.integers(0, 4, count))


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("domain", [None, (0.0, 1.0)])
@pytest.mark.parametrize("method", ["interval", "dual"])
@pytest.mark.parametrize(("norm", "eps"), NORMS)
def test_torch_bounds_and_margins_equal_numpy(kind, domain, method, norm, eps):
    network, x, y = question(kind)
    certifying = frozen(network)
    bounds = batch_bounds(network, input_balls(x, eps, domain, norm), method)
    found = robust_margins(network, x, y, Perturbation(eps, domain, norm=norm), method).detach().numpy()
    for i in range(len(x)):
        ball, label = make_ball(norm, x[i].numpy(), eps, domain), int(y[i])
        wanted = layer_bounds(certifying, ball, ("interval",) if method == "interval" else ("interval", "dual"))
        for k in range(len(wanted)):
            np.testing.assert_allclose(bounds.lower[k][i].detach(), wanted.lower[k], rtol=0, atol=1e-9)
            np.testing.assert_allclose(bounds.upper[k][i].detach(), wanted.upper[k], rtol=0, atol=1e-9)
        exact = [bound.lower for bound in margins(certifying, ball, label, method, wanted)]
        np.testing.assert_allclose(np.delete(found[i], label), exact, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("norm", "eps"), NORMS)
@pytest.mark.parametrize("loss", [dual, interval])
def test_gradients_agree_with_finite_differences(norm, eps, loss):
    network, x, y = question("conv", seed=1)
    region = Perturbation(eps, (0.0, 1.0), norm=norm)
    gradients = torch.autograd.grad(loss(network, x, y, region).sum(), parameters(network))
    rng = np.random.default_rng(0)
    direction = [torch.tensor(rng.normal(size=tuple(tensor.shape))) for tensor in parameters(network)]
    slope = sum((g * d).sum() for g, d in zip(gradients, direction, strict=True))
    ends = []
    for step in (1e-6, -1e-6):
        moved = as_torch(frozen(network))
        with torch.no_grad():
            for tensor, change in zip(parameters(moved), direction, strict=True):
                tensor += step * change
        ends.append(loss(moved, x, y, region).sum())
    assert float((ends[0] - ends[1]).detach() / 2e-6) == pytest.approx(float(slope), rel=1e-3, abs=1e-6)


@pytest.mark.parametrize(("norm", "eps"), [("l1", 0.5), ("l2", 0.4)])
def test_attack_points_stay_in_the_ball_and_raise_the_loss(norm, eps):
    network, x, y = question("dense", seed=3, count=20)
    region = Perturbation(eps, (0.0, 1.0), torch.Generator().manual_seed(0), norm=norm)
    clean, bound = standard(network, x, y, region), dual(network, x, y, region)
    for attack in (fgsm_points, pgd_points):
        points = attack(network, x, y, region)
        for point, center in zip(points.numpy(), x.numpy(), strict=True):
            assert make_ball(norm, center, eps, (0.0, 1.0)).contains(point, 1e-9)
        assert not points.requires_grad
        loss = standard(network, points, y, region)
        assert bool(loss.mean() > clean.mean())
        assert bool((loss <= bound + 1e-9).all())


def test_a_radius_of_nothing_is_the_image():
    network, x, _ = question("dense")
    for norm in ("l1", "l2"):
        middle, half_width = ball_range(network.layers[0].weight, x, (x * 0, x * 0), 0.0, norm)
        np.testing.assert_allclose(middle.detach(), x @ network.layers[0].weight.detach().T)
        assert not half_width.any()


def test_a_network_is_trained_over_l2_balls():
    keys = {"name": "net", "dataset": "digits", "hidden": (10,), "epochs": 2, "images": 100, "batch": 50, "monitor": 10,
            "evaluate": 10}  # fmt: skip
    spec = NetworkSpec(**keys, loss="dual", eps=0.1, norm="l2", domain=(0.0, 1.0))
    found = train(spec, load_dataset("digits", "train"), load_dataset("digits", "test"))
    assert found.network.output_size == 10
    linf = NetworkSpec(**keys, loss="dual", eps=0.1, domain=(0.0, 1.0))
    assert "norm" not in linf.record
    assert spec.record["norm"] == "l2"
    assert spec.digest != linf.digest
    with pytest.raises(ValueError, match="norm must be one of linf, l1, l2"):
        NetworkSpec(**keys, norm="l3")
    with pytest.raises(ValueError, match="projections estimate bounds over ℓ∞ balls"):
        NetworkSpec(**keys, loss="dual", eps=0.1, norm="l1", projections=3)
