"""The mixed losses: CROWN-IBP between its two bounds, MTL-IBP between its two losses, their schedules and keys."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch: pip install relugap[train]")

from toolkit.data.datasets import load_dataset  # noqa: E402
from toolkit.networks.layers import Dense  # noqa: E402
from toolkit.networks.network import Network  # noqa: E402
from toolkit.problems.input_sets import LinfBall, make_ball  # noqa: E402
from toolkit.training.bounds import batch_bounds, input_balls, margin_bounds  # noqa: E402
from toolkit.training.loop import train  # noqa: E402
from toolkit.training.losses import (  # noqa: E402
    LOSSES,
    Perturbation,
    adversarial,
    crown_ibp,
    fgsm_points,
    interval,
    mtl_ibp,
    pgd_points,
    standard,
)
from toolkit.training.schedules import clean_share, crown_share, radius  # noqa: E402
from toolkit.training.spec import LayerSpec, NetworkSpec  # noqa: E402
from toolkit.training.trainable import frozen, parameters, trainable_network  # noqa: E402
from toolkit.verify.layer_bounds import layer_bounds  # noqa: E402
from toolkit.verify.margins import margins  # noqa: E402

SHAPES = {
    "dense": ((LayerSpec(dense=9), LayerSpec(dense=8)), (1, 5, 5)),
    "conv": ((LayerSpec(conv=3, kernel=4, stride=2, padding=1), LayerSpec(conv=2), LayerSpec(dense=6)), (1, 8, 8)),
    "residual": ((LayerSpec(dense=7), LayerSpec(residual=(LayerSpec(dense=5), LayerSpec(dense=7)))), (1, 4, 4)),
    "pooled": ((LayerSpec(conv=2, padding=1), LayerSpec(max_pool=2), LayerSpec(dense=5)), (1, 4, 4)),
}
SPEC = {"name": "net", "dataset": "digits", "hidden": (8,), "eps": 0.1, "epochs": 10}


def _network(kind, seed=0, dtype=torch.float64):
    hidden, shape = SHAPES[kind]
    return trainable_network(hidden, shape, 4, seed, dtype)


def _batch(network, count=4, seed=0):
    rng = np.random.default_rng(seed)
    x = torch.tensor(rng.uniform(0, 1, (count, network.input_size)))
    return x, torch.tensor(rng.integers(0, network.output_size, count))


def _region(eps=0.1, seed=0, **keys):
    return Perturbation(eps, (0.0, 1.0), torch.Generator().manual_seed(seed), **keys)


def _gradient(loss, network, region):
    x, y = _batch(network)
    return torch.autograd.grad(loss(network, x, y, region).sum(), parameters(network))


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.02), ("linf", 0.3), ("l2", 0.4)])
def test_the_crown_margins_equal_the_numpy_rung_on_interval_bounds(kind, norm, eps):
    network = _network(kind)
    certifying = frozen(network)
    x, y = _batch(network)
    bounds = batch_bounds(network, input_balls(x, eps, (0.0, 1.0), norm), "interval")
    found = margin_bounds(network, bounds, y, "crown").detach().numpy()
    for i, label in enumerate(y.tolist()):
        ball = make_ball(norm, x[i].numpy(), eps, (0.0, 1.0))
        wanted = margins(certifying, ball, label, "crown", layer_bounds(certifying, ball, ("interval",)))
        assert np.allclose(np.delete(found[i], label), [bound.lower for bound in wanted], rtol=0, atol=1e-10)
        assert found[i, label] == 0.0


@pytest.mark.parametrize("kind", SHAPES)
def test_crown_ibp_is_the_interval_loss_at_beta_0_and_crown_at_beta_1(kind):
    network = _network(kind)
    x, y = _batch(network)
    assert torch.equal(crown_ibp(network, x, y, _region(beta=0.0)), interval(network, x, y, _region()))
    both = zip(_gradient(crown_ibp, network, _region(beta=0.0)), _gradient(interval, network, _region()), strict=True)
    assert all(torch.equal(own, other) for own, other in both)
    crown = margin_bounds(network, batch_bounds(network, input_balls(x, 0.1, (0.0, 1.0)), "interval"), y, "crown")
    wanted = torch.nn.functional.cross_entropy(-crown, y, reduction="none")
    assert torch.allclose(crown_ibp(network, x, y, _region(beta=1.0)), wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", SHAPES)
def test_mtl_ibp_is_one_of_its_two_losses_at_the_ends_and_between_them_elsewhere(kind):
    network = _network(kind, seed=1)
    x, y = _batch(network)
    attacked, bound = adversarial(network, x, y, _region()), interval(network, x, y, _region())
    assert torch.equal(mtl_ibp(network, x, y, _region(alpha=0.0)), attacked)
    assert torch.equal(mtl_ibp(network, x, y, _region(alpha=1.0)), bound)
    mixed = mtl_ibp(network, x, y, _region(alpha=0.3))
    assert torch.allclose(mixed, 0.3 * bound + 0.7 * attacked, rtol=0, atol=1e-12)
    assert bool((attacked <= mixed + 1e-12).all())
    assert bool((mixed <= bound + 1e-12).all())


@pytest.mark.parametrize("beta", [0.0, 0.4, 1.0])
def test_crown_ibp_bounds_the_worst_cross_entropy_over_every_point_of_a_grid(beta):
    """Two inputs, so that the grid comes close to the worst point itself."""
    for seed in range(4):
        network = trainable_network((LayerSpec(dense=8), LayerSpec(dense=6)), (1, 1, 2), 3, seed, torch.float64)
        x, y = _batch(network, 3, seed)
        bound = crown_ibp(network, x, y, _region(0.3, beta=beta))
        for i in range(len(x)):
            ball = LinfBall(x[i].numpy(), 0.3, (0.0, 1.0))
            sides = [np.linspace(low, high, 41) for low, high in zip(ball.lower, ball.upper, strict=True)]
            points = torch.tensor(np.stack(np.meshgrid(*sides), -1).reshape(-1, 2))
            worst = standard(network, points, y[i].expand(len(points)), _region()).max()
            assert float(worst.detach()) <= float(bound[i].detach()) + 1e-12


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("loss", [crown_ibp, mtl_ibp])
@pytest.mark.parametrize("eps", [1e-6, 0.1, 2.0])
def test_gradients_are_finite(kind, loss, eps):
    network = _network(kind, dtype=torch.float32)
    x, y = _batch(network)
    values = loss(network, x.float(), y, _region(eps, beta=0.5, alpha=0.5))
    gradients = torch.autograd.grad(values.sum(), parameters(network))
    assert all(bool(torch.isfinite(gradient).all()) for gradient in (values, *gradients))
    assert any(bool(gradient.abs().max() > 0) for gradient in gradients)


@pytest.mark.parametrize("kind", SHAPES)
def test_gradients_of_crown_ibp_agree_with_finite_differences(kind):
    """CROWN's slopes jump where u = −l and its chords do not, so the step stays where none of them jumps."""
    network, region = _network(kind, seed=5), _region(0.1, beta=0.6)
    x, y = _batch(network, 2, seed=3)
    weights = parameters(network)
    gradients = torch.autograd.grad(crown_ibp(network, x, y, region).sum(), weights)
    rng = np.random.default_rng(0)
    direction = [torch.tensor(rng.normal(size=tuple(tensor.shape))) for tensor in weights]
    slope = sum((g * d).sum() for g, d in zip(gradients, direction, strict=True))
    ends = []
    with torch.no_grad():
        for step in (1e-7, -2e-7):
            for tensor, change in zip(weights, direction, strict=True):
                tensor += step * change
            ends.append(float(crown_ibp(network, x, y, region).sum()))
    assert (ends[0] - ends[1]) / 2e-7 == pytest.approx(float(slope), rel=2e-4, abs=1e-6)


def test_shares_and_radius_move_with_the_ramp_after_a_warm_up_at_radius_0():
    spec = NetworkSpec(**SPEC, loss="crown-ibp", kappa=1.0, kappa_end=0.5, warmup=0.2, ramp=0.4)
    assert [radius(spec, done) for done in (0, 1.99, 2, 4, 6, 10)] == pytest.approx([0, 0, 0.01, 0.055, 0.1, 0.1])
    assert [crown_share(spec, done) for done in (0, 2, 4, 6, 10)] == pytest.approx([1, 1, 0.5, 0, 0])
    assert [clean_share(spec, done) for done in (0, 2, 4, 6, 10)] == pytest.approx([1, 1, 0.75, 0.5, 0.5])
    kept = spec.model_copy(update={"beta": 0.5, "beta_end": 1.0, "kappa_end": None})
    assert [crown_share(kept, done) for done in (2, 4, 6)] == pytest.approx([0.5, 0.75, 1.0])
    assert {clean_share(kept, done) for done in (0, 4, 10)} == {1.0}
    at_once = spec.model_copy(update={"ramp": 0.0})
    assert [radius(at_once, done) for done in (1.99, 2, 10)] == [0.0, 0.1, 0.1]


@pytest.mark.parametrize("keys", [{"loss": "crown-ibp"}, {"loss": "mtl-ibp", "alpha": 0.2}, {"loss": "adversarial"}])
def test_a_warm_up_alone_is_standard_training(keys):
    shared = SPEC | {"epochs": 1, "images": 100, "monitor": 5, "ramp": 0.0}
    data = load_dataset("digits", "train"), load_dataset("digits", "test")
    robust = train(NetworkSpec(**shared, **keys, warmup=1.0), *data)
    plain = train(NetworkSpec(**shared, loss="standard"), *data)
    for own, other in zip(parameters(robust.network), parameters(plain.network), strict=True):
        assert torch.equal(own, other)


@pytest.mark.parametrize(
    "keys", [{"loss": "crown-ibp", "kappa": 1.0, "kappa_end": 0.0}, {"loss": "mtl-ibp", "alpha": 0.1}]
)
def test_the_mixed_losses_certify_where_standard_training_does_not(keys):
    shared = SPEC | {"hidden": (16, 16), "epochs": 10, "images": 800, "monitor": 100, "lr": 1e-2, "domain": (0.0, 1.0)}
    data = load_dataset("digits", "train"), load_dataset("digits", "test")
    plain = train(NetworkSpec(**shared, loss="standard"), *data).history[-1]
    robust = train(NetworkSpec(**shared, **keys), *data).history[-1]
    assert robust.attacked_error <= robust.certified_error < 0.75 < plain.certified_error
    assert math.isfinite(robust.loss)


def test_a_spec_says_nothing_of_keys_it_leaves_out():
    """Records and checkpoints of networks trained before these keys were there stay those of their specs."""
    plain, mixed = NetworkSpec(**SPEC), NetworkSpec(**SPEC, loss="mtl-ibp", alpha=0.25)
    assert not {"alpha", "beta", "beta_end", "kappa_end", "warmup"} & set(plain.record)
    assert mixed.record["alpha"] == 0.25
    assert mixed.digest != NetworkSpec(**SPEC, loss="mtl-ibp", alpha=0.5).digest


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"loss": "mtl-ibp"}, r"loss 'mtl-ibp' needs alpha, the interval loss's share in \[0, 1\], got none"),
        ({"loss": "mtl-ibp", "alpha": 1.5}, r"alpha\n.*less than or equal to 1"),
        ({"loss": "dual", "alpha": 0.5}, r"alpha is a key of loss 'mtl-ibp', got loss 'dual'"),
        ({"loss": "interval", "beta": 0.5}, r"beta is a key of loss 'crown-ibp', got loss 'interval'"),
        (
            {"loss": "mtl-ibp", "alpha": 0.1, "beta_end": 0.0},
            r"beta_end is a key of loss 'crown-ibp', got loss 'mtl-ibp'",
        ),
        ({"loss": "crown-ibp", "kappa_end": -0.1}, r"kappa_end\n.*greater than or equal to 0"),
        ({"loss": "crown-ibp", "warmup": 0.6, "ramp": 0.5}, r"warmup \+ ramp must be ≤ 1, got 0\.6 \+ 0\.5"),
        (
            {"loss": "crown-ibp", "projections": 3},
            r"projections estimate the bounds of dual losses, got loss 'crown-ibp'",
        ),
        ({"loss": "crown_ibp"}, r"loss must be one of standard, .*, crown-ibp, mtl-ibp, got 'crown_ibp'"),
    ],
)
def test_keys_that_do_not_fit_are_named(keys, message):
    with pytest.raises(ValueError, match=message):
        NetworkSpec(**SPEC | keys)


def test_every_loss_gives_one_value_per_image():
    network = _network("dense")
    x, y = _batch(network)
    assert all(loss(network, x, y, _region()).shape == (len(x),) for loss in LOSSES.values())


@pytest.mark.parametrize("norm", ["linf", "l1", "l2"])
@pytest.mark.parametrize("loss", LOSSES)
def test_a_ball_of_radius_zero_is_the_image(loss, norm):
    network = _network("dense")
    x, y = _batch(network)
    value = LOSSES[loss](network, x, y, _region(0.0, norm=norm))
    if loss == "dual-margin":
        logits = network.forward(x)
        clean = torch.relu(logits - logits.gather(1, y[:, None])).amax(-1)
    else:
        clean = standard(network, x, y, _region(0.0))
    torch.testing.assert_close(value, clean, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("norm", ["linf", "l1", "l2"])
@pytest.mark.parametrize("points", [pgd_points, fgsm_points])
def test_the_search_at_radius_zero_stays_at_the_image_without_a_gradient(points, norm):
    network = Network([Dense(torch.zeros((3, 4), dtype=torch.float64))])
    x, y = _batch(network)
    torch.testing.assert_close(points(network, x, y, _region(0.0, norm=norm)), x, rtol=0, atol=0)
