"""What a caller may hand in by mistake: the right answer, or a ValueError with a sentence; never another exception."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from toolkit import (
    Dataset,
    Dense,
    LinfBall,
    Network,
    Settings,
    Verdict,
    certified_radius,
    certify,
    closest,
    layer_bounds,
    margins,
    write_proof,
    write_report,
)
from toolkit.runs.batch import BatchPlan, certify_samples
from toolkit.runs.distances import DistancePlan, measure_distances

LAYERS = (Dense([[1.0, 1.0], [1.0, -1.0]]), Dense([[1.0, 0.0], [0.0, 1.0]]))
NETWORK = Network(LAYERS, "odd")
BALL = LinfBall([0.5, 0.1], 0.05)
MASKED = np.ma.array([0.5, 0.1], mask=[False, True])
HUGE = 10**400


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (Settings(solver="x"), "unknown solver 'x'; allowed: auto, highs, gurobi, scip"),
        (Settings(device="gpu"), r"device 'gpu' is not one that torch has here .* allowed: 'cpu', or a name such as"),
    ],
)
def test_settings_that_name_nothing_here_are_told_before_any_work(
    settings: Settings, told: str, tmp_path: Path
) -> None:
    if settings.device != "cpu":
        pytest.importorskip("torch")
    data = Dataset.from_arrays([[0.5, 0.1]], [0])
    plan, radii = BatchPlan(0.1, settings=settings), DistancePlan(settings=settings)
    for call in (
        lambda: certify(NETWORK, BALL, 0, ["dual"], settings=settings),
        lambda: margins(NETWORK, BALL, 0, "dual", settings=settings),
        lambda: layer_bounds(NETWORK, BALL, settings=settings),
        lambda: write_proof(tmp_path / "p.npz", NETWORK, BALL, 0, settings=settings),
        lambda: closest(NETWORK, [0.5, 0.1], 0, rungs=["dual"], settings=settings),
        lambda: certify_samples(NETWORK, data, [0], plan),
        lambda: measure_distances(NETWORK, data, [0], radii, tmp_path / "out", "r0001-aaaaaa"),
    ):
        with pytest.raises(ValueError, match=told):
            call()
    assert not list(tmp_path.iterdir())


def test_the_largest_radii_are_answered_without_a_word_of_numpy() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for ladder in (["dual"], ["interval"], ["dual", "bab"]):
            assert certify(NETWORK, LinfBall([0.5, 0.1], 1e308), 0, ladder).verdict is not Verdict.YES


def test_bounds_changed_by_hand_certify_nothing() -> None:
    """l,u that layer_bounds gave are certified; the same object with other numbers is not, whatever it says."""
    bounds = layer_bounds(NETWORK, BALL)
    assert bounds.certified
    assert replace(bounds, chain=("interval",)).certified
    tighter = tuple(side - 1e-9 for side in bounds.upper)
    for changed in (replace(bounds, lower=tighter), replace(bounds, upper=tuple(side + 1.0 for side in bounds.upper))):
        assert not changed.certified
        assert margins(NETWORK, BALL, 0, "dual", changed)[0].certified_lower == -np.inf
    assert not replace(bounds, region="x").certified


@pytest.mark.parametrize(
    "call",
    [
        lambda: LinfBall(HUGE, 0.1),
        lambda: LinfBall([0.5, 0.1], HUGE),
        lambda: LinfBall(MASKED, 0.1),
        lambda: LinfBall([0.5, 0.1], bytearray(b"x")),
        lambda: LinfBall([0.5, 0.1], np.ma.masked),
        lambda: LinfBall([0.5, 0.1], 0.1, BALL),
        lambda: Network(LAYERS, metadata=3),
        lambda: Network(LAYERS, metadata="ab"),
        lambda: BALL.contains([0.5, 0.1], tolerance=None),
        lambda: BALL.contains([0.5, 0.1], tolerance="1"),
        lambda: BALL.contains([0.5, 0.1], tolerance=float("nan")),
        lambda: certify(NETWORK, BALL, 0, ladder=np.array(1)),
        lambda: certify(NETWORK, BALL, 0, time_limit=HUGE),
        lambda: certify(NETWORK, BALL, 0, known=[1]),
        lambda: certify(NETWORK, BALL, 0, known={"lp": 1}),
        lambda: certify(NETWORK, BALL, 0, known={"lp": [1]}),
        lambda: margins(NETWORK, BALL, 0, "dual", settings={}),
        lambda: margins(NETWORK, BALL, 0, "dual", settings=0),
        lambda: layer_bounds(NETWORK, BALL, progress=3),
        lambda: layer_bounds(NETWORK, BALL, deadline="x"),
        lambda: NETWORK.forward(HUGE),
        lambda: write_report(None, "x"),
        lambda: Dataset("a", "test", None, np.array([0]), (1, 2, 2)),
        lambda: Dataset("a", "test", np.zeros((1, 1, 2, 2)), [0], (1, 2, 2)),
        lambda: Dataset("a", "test", np.zeros((1, 1, 2, 2)), np.array([0]), 4),
        lambda: Dataset("a", "test", np.zeros((1, 1, 2, 2)), np.array([0]), (1, 2, 2), None),
        lambda: Network.load(""),
    ],
)
def test_odd_values_are_refused_in_one_sentence(call) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        call()
    assert str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_radius_finer_than_floats_ends() -> None:
    """The exact radius lies between neighbouring floats at best; a finer tolerance must not bisect for ever."""
    radius = certified_radius(NETWORK, [0.5, 0.1], 0, ("exact",), largest=1.0, tolerance=1e-320, bounds=("interval",))
    assert radius.certified <= 0.1 <= radius.refuted
    assert len(radius.tried) < 200


@pytest.mark.parametrize("metadata", [{"a": np.float32(1)}, {"a": {1}}, {1: 2, "1": 3}])
def test_what_cannot_be_read_back_is_not_saved(tmp_path: Path, metadata: dict[object, object]) -> None:
    with pytest.raises(ValueError, match="metadata must be what JSON can hold"):
        Network(LAYERS, "odd", metadata).save(tmp_path / "a.npz")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="name must be a text of at most"):
        Network(LAYERS, "a" * 1001).save(tmp_path / "a.npz")
    assert not list(tmp_path.iterdir())


def test_tensors_are_answered_or_refused() -> None:
    torch = pytest.importorskip("torch")
    weight = torch.tensor([[1.0, 1.0], [1.0, -1.0]])
    trainable = Network([Dense(weight, torch.zeros(2))])
    for call in (
        lambda: trainable.digest,
        lambda: certify(trainable, BALL, 0),
        lambda: layer_bounds(trainable, BALL),
        lambda: margins(trainable, BALL, 0, "dual"),
    ):
        with pytest.raises(ValueError, match="torch tensors as weights"):
            call()
    with pytest.raises(ValueError, match=r"take x\.detach\(\)"):
        NETWORK.forward(torch.zeros(2, requires_grad=True))
    with pytest.raises(ValueError, match="dense real tensor"):
        NETWORK.forward(torch.zeros(2, dtype=torch.complex64))
    assert LinfBall([0.5, 0.1], torch.tensor(0.25, dtype=torch.bfloat16)).eps == 0.25
    halves = torch.tensor([0.5, 0.25], dtype=torch.bfloat16)
    assert NETWORK.forward(halves).tolist() == NETWORK.forward([0.5, 0.25]).tolist()
    with pytest.raises(ValueError, match="eps must be one number"):
        LinfBall([0.5, 0.1], torch.tensor([0.1, 0.2], requires_grad=True))


def test_a_module_may_hide_its_own_arithmetic_in_other_methods() -> None:
    """Values beyond the points compared: export sees what the class hides."""
    torch = pytest.importorskip("torch")

    class Clamped(torch.nn.Conv2d):
        def _conv_forward(self, *args):  # type: ignore[no-untyped-def]
            return super()._conv_forward(*args).clamp(-1e6, 1e6)

    class Capped(torch.nn.ReLU):
        def _call_impl(self, *args, **options):  # type: ignore[no-untyped-def]
            return super()._call_impl(*args, **options).clamp(max=1e6)

    linear = torch.nn.Linear(8, 2)
    for module in (
        torch.nn.Sequential(Clamped(1, 2, 3), torch.nn.Flatten(), linear),
        torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), Capped(), torch.nn.Flatten(), linear),
    ):
        points = 1e7 * torch.randn(50, 1, 4, 4, dtype=torch.float64)
        expected = module.double()(points).detach().numpy()
        found = Network.from_torch(module, (1, 4, 4)).forward(points.numpy())
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())
    for shape in (3, "8", (None,), [[8]], (8.0,)):
        with pytest.raises(ValueError, match="input_shape"):
            Network.from_torch(linear, shape)  # type: ignore[arg-type]
    handle = torch.nn.modules.module.register_module_forward_hook(lambda module, given, found: found)
    try:
        with pytest.raises(ValueError, match="hooks for all modules"):
            Network.from_torch(linear)
    finally:
        handle.remove()


def test_a_checkpoint_wrapped_around_itself_ends(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    endless: dict[str, object] = {}
    endless["model"] = endless
    torch.save(endless, tmp_path / "endless.pth")
    with pytest.raises(ValueError, match="wrappers around each other"):
        Network.load(tmp_path / "endless.pth", "mlp")
