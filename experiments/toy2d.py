"""The 2-D toy of Wong & Kolter 2018 (Figure 3): ℓ∞ boxes around random points, standard against dual training.

    python experiments/toy2d.py --out results/toy2d

Random points of the unit square, at least 2r apart in ℓ∞, each with a random class of two; the boxes of radius r around
them do not overlap, so a network can give each box one class. Both networks have the same layers, seed and schedule and
differ in the loss. A box counts as certified when `certify` says YES (exact), as one-sided by sampling when the network
gives every point of a fine grid in it the right class. Published: the figure alone; the dual-trained boundary keeps
clear of every box, the standard one does not.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from toolkit.arrays import FloatArray
from toolkit.cli.experiment import end_experiment, experiment_parser, experiment_run
from toolkit.data.atomic import write_figure
from toolkit.data.datasets import Dataset
from toolkit.networks.network import Network
from toolkit.problems.answers import Verdict
from toolkit.problems.input_sets import LinfBall
from toolkit.verify.ladder import certify
from toolkit.verify.margins import margins

RADIUS = 0.08
COLOURS = ("#0072B2", "#D55E00")  # the two classes
LOSSES = ("standard", "dual")


def separated_points(count: int, radius: float, seed: int) -> FloatArray:
    """So many points of the unit square, each pair more than 2·radius apart in ℓ∞, drawn by rejection.

    Raises ValueError when a thousand draws in a row find no room.
    """
    rng = np.random.default_rng(seed)
    points: list[FloatArray] = []
    misses = 0
    while len(points) < count:
        point = rng.uniform(0, 1, 2)
        if all(np.max(np.abs(point - other)) > 2 * radius for other in points):
            points.append(point)
            misses = 0
        misses += 1
        if misses > 1000:
            raise ValueError(f"count must leave room for boxes of radius {radius:g}: {len(points)} fit, asked {count}")
    return np.array(points)


def toy_data(count: int, radius: float, seed: int) -> Dataset:
    """The points as a data set with random classes, as many of each."""
    points = separated_points(count, radius, seed)
    labels = np.random.default_rng(seed + 1).permutation(np.arange(count) % 2).astype(np.int64)
    return Dataset("toy2d", "train", points, labels, (2,))


def train_toy(data: Dataset, loss: str, radius: float, hidden: Sequence[int], epochs: int, seed: int) -> Network:
    """The project's own training loop on the points, one batch an epoch."""
    from toolkit.training.loop import train
    from toolkit.training.spec import NetworkSpec
    from toolkit.training.trainable import frozen

    spec = NetworkSpec(
        name=f"toy2d-{loss}", dataset="digits", hidden=tuple(hidden), loss=loss, eps=radius, epochs=epochs, ramp=0.5,
        batch=len(data), lr=5e-3, lr_decay=0.1, seed=seed, monitor=1,
    )  # fmt: skip
    spec = spec.model_copy(update={"dataset": data.name})  # no data set that a file could name
    trained = train(spec, data, data)
    return frozen(trained.network, spec.name, {"spec": spec.record, "seconds": trained.seconds})


def judge(network: Network, data: Dataset, radius: float, grid: int = 41) -> dict[str, Any]:
    """Errors on the points, and how many boxes lie on one side: by a grid, by the dual bound, by the exact verdict."""
    steps = np.linspace(-radius, radius, grid)
    offsets = np.stack(np.meshgrid(steps, steps), -1).reshape(-1, 2)
    one_sided = dual = exact = 0
    for x, label in zip(data.features, data.labels.tolist(), strict=True):
        ball = LinfBall(x, radius)
        one_sided += bool(np.all(network.predict(x + offsets) == label))
        dual += all(bound.certified_lower > 0 for bound in margins(network, ball, label, "dual"))
        exact += certify(network, ball, label, ladder=("dual", "pgd", "exact"), time_limit=20).verdict is Verdict.YES
    return {
        "network": network.name,
        "points": len(data),
        "radius": radius,
        "wrong_points": int(np.sum(network.predict(data.features) != data.labels)),
        "boxes_one_sided_on_grid": one_sided,
        "boxes_certified_dual": dual,
        "boxes_certified_exact": exact,
        "training_seconds": round(float(network.metadata["seconds"]), 2),
    }


def draw(networks: Sequence[Network], data: Dataset, radius: float, table: pd.DataFrame, path: Path) -> None:
    """Decision regions side by side, with the points and their boxes."""
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    figure = Figure(figsize=(4.2 * len(networks), 4.4), layout="constrained")
    low, high = -0.1, 1.1
    axis = np.linspace(low, high, 400)
    plane = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    for k, network in enumerate(networks):
        axes = figure.add_subplot(1, len(networks), k + 1)
        classes = network.predict(plane).reshape(axis.size, axis.size)
        axes.imshow(classes, extent=(low, high, low, high), origin="lower", cmap=ListedColormap(COLOURS), alpha=0.3,
                    vmin=0, vmax=1, interpolation="nearest")  # fmt: skip
        for x, label in zip(data.features, data.labels.tolist(), strict=True):
            corner = (float(x[0]) - radius, float(x[1]) - radius)
            axes.add_patch(Rectangle(corner, 2 * radius, 2 * radius, fill=False, edgecolor=COLOURS[label]))
            axes.plot(*x, "o", color=COLOURS[label], markersize=4)
        certified = table["boxes_certified_exact"].iloc[k]
        title = f"{network.metadata['spec']['loss']} training: {certified} of {len(data)} boxes certified"
        axes.set(title=title, xlabel="$x_1$", ylabel="$x_2$", aspect="equal")
    write_figure(path, figure, dpi=150)


def main(arguments: Sequence[str] | None = None) -> pd.DataFrame:
    """Train both networks and write toy2d.png, table.csv and provenance.json."""
    parser = experiment_parser(__doc__, "toy2d")
    parser.add_argument("--points", type=int, default=12)
    parser.add_argument("--radius", type=float, default=RADIUS)
    parser.add_argument("--hidden", type=int, nargs="+", default=[100, 100, 100, 100])
    parser.add_argument("--epochs", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    data = toy_data(options.points, options.radius, options.seed)
    with experiment_run(parser, options) as run:
        schedule = options.radius, options.hidden, options.epochs, options.seed
        networks = [train_toy(data, loss, *schedule) for loss in LOSSES]
        table = pd.DataFrame([judge(network, data, options.radius) for network in networks])
        run.write({"table.csv": table})
        draw(networks, data, options.radius, table, options.out / "toy2d.png")
        run.record(specs=[network.metadata["spec"] for network in networks])
    return table


if __name__ == "__main__":
    sys.exit(end_experiment(main))
