"""Published networks and figures: what the toolkit computes on real weights equals what was printed or measured before.

Needs RELUGAP_DATA (published weights and MNIST test images); the Fashion-MNIST figures need its test set as well.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from toolkit.data.datasets import Dataset, load_dataset
from toolkit.networks.network import Network
from toolkit.problems.answers import Status
from toolkit.problems.bounds import ReluBounds
from toolkit.problems.input_sets import LinfBall
from toolkit.problems.settings import Settings
from toolkit.verify.layer_bounds import layer_bounds
from toolkit.verify.margins import margins

# MNIST test image 8 (label 5), Wong & Kolter's MNIST network, ε = 0.1, ball cut by [0,1], l,u by the dual recursion
# with an exact first layer: target → (dual, LP, m* by Gurobi at a gap of 1e-4), from an independent prototype.
MARGINS = {
    0: (10.12123, 10.45477, 10.6077),
    1: (23.65554, 24.32384, 24.6716),
    2: (14.49391, 14.89632, 15.2699),
    3: (14.47972, 14.78566, 15.1194),
    4: (11.38282, 12.02842, 12.3898),
    6: (-0.95549, -0.41589, -0.2988),
    7: (17.49603, 17.96011, 18.3542),
    8: (3.48832, 3.69885, 3.8699),
    9: (9.70986, 10.12740, 10.3400),
}


@pytest.fixture(scope="module")
def wong_kolter(data_dir: Path) -> Network:
    return Network.load(data_dir / "convex_adversarial" / "mnist.pth", architecture="wong-kolter-small")


@pytest.fixture(scope="module")
def image_eight(data_dir: Path) -> LinfBall:
    mnist = load_dataset("mnist", "test")
    assert mnist.labels[8] == 5
    return LinfBall(mnist.images[8], eps=0.1, domain=(0, 1))


@pytest.fixture(scope="module")
def dual_bounds(wong_kolter: Network, image_eight: LinfBall) -> ReluBounds:
    return layer_bounds(wong_kolter, image_eight, rungs=("dual",))


def test_stable_neurons(dual_bounds: ReluBounds) -> None:
    assert dual_bounds.counts() == [(67, 864, 2205), (88, 607, 873), (0, 10, 90)]


@pytest.mark.parametrize(("rung", "column"), [("dual", 0), ("lp", 1)])
def test_dual_and_lp_margins(
    rung: str, column: int, wong_kolter: Network, image_eight: LinfBall, dual_bounds: ReluBounds
) -> None:
    for bound in margins(wong_kolter, image_eight, 5, rung, dual_bounds, settings=Settings(solver="highs")):
        assert bound.lower == pytest.approx(MARGINS[bound.target][column], abs=1e-4)


# HiGHS needs 5 to 30 s a margin: one in the default suite, all nine in the long one.
@pytest.mark.parametrize(
    ("solver", "targets"),
    [
        ("auto", tuple(MARGINS)),
        ("highs", (6,)),
        pytest.param("highs", tuple(MARGINS), marks=pytest.mark.slow),
    ],
)
def test_exact_margins(
    solver: str, targets: tuple[int, ...], wong_kolter: Network, image_eight: LinfBall, dual_bounds: ReluBounds
) -> None:
    found = margins(wong_kolter, image_eight, 5, "exact", dual_bounds, targets, Settings(solver=solver, mip_gap=5e-5))
    for bound in found:
        assert bound.status is Status.OPTIMAL
        assert bound.lower == pytest.approx(MARGINS[bound.target][2], abs=2e-3)
        assert bound.upper == pytest.approx(MARGINS[bound.target][2], abs=2e-3)


@pytest.fixture(scope="module")
def fashion(data_dir: Path) -> tuple[Network, Dataset]:
    try:
        images = load_dataset("fashion-mnist", "test")
    except (FileNotFoundError, OSError, ValueError) as error:
        pytest.skip(
            f"needs the Fashion-MNIST test set (Debian package dataset-fashion-mnist, or RELUGAP_DATA): {error}"
        )
    network = Network.load(data_dir / "convex_adversarial" / "fashion_mnist.pth", architecture="wong-kolter-small")
    return network, images


def test_fashion_standard_error(fashion: tuple[Network, Dataset]) -> None:
    """Wong & Kolter 2018, Table 1: 21.73 % on all 10,000 test images."""
    network, data = fashion
    wrong = sum(
        int((network.predict(data.images[i : i + 500]) != data.labels[i : i + 500]).sum())
        for i in range(0, 10_000, 500)
    )
    assert wrong == 2173


def test_fashion_robust_error_by_the_dual(fashion: tuple[Network, Dataset]) -> None:
    """36.0 % on the first 200 images at ε = 0.1 without the [0,1] cut (34.53 % on all 10,000 in the paper)."""
    network, data = fashion
    wrong = 0
    for image, label in zip(data.images[:200], data.labels[:200].tolist(), strict=True):
        ball = LinfBall(image, eps=0.1)
        bounds = layer_bounds(network, ball, rungs=("dual",))
        wrong += min(bound.lower for bound in margins(network, ball, label, "dual", bounds)) <= 0
    assert wrong == 72


def test_images_are_the_ten_of_salman(data_dir: Path) -> None:
    """The published ten_test_images.npy are the MNIST test images our loader gives at the documented places."""
    ten = np.load(data_dir / "robust-verify-benchmark" / "ten_test_images.npy", allow_pickle=False)
    places = [5845, 6139, 124, 3368, 1263, 313, 8491, 6341, 1759, 4432]
    mnist = load_dataset("mnist", "test")
    np.testing.assert_allclose(ten.reshape(10, -1), mnist.images[places].reshape(10, -1), atol=1e-6)
    assert mnist.labels[places].tolist() == [7, 3, 7, 0, 4, 3, 1, 5, 8, 0]
