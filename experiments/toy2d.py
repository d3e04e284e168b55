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
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from toolkit.arrays import FloatArray
from toolkit.cli.experiment import end_experiment, experiment_parser, experiment_run
from toolkit.data.datasets import Dataset
from toolkit.networks.network import Network
from toolkit.problems.answers import Verdict
from toolkit.problems.input_sets import LinfBall
from toolkit.report import save_figure
from toolkit.report.styles import CLASS_COLOURS, INK, OPEN_GREY, panel_grid, paper_style
from toolkit.verify.ladder import certify
from toolkit.verify.margins import margins

RADIUS = 0.08
LOSSES = ("standard", "dual")
MARKERS = ("o", "s")  # of the two classes


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


def certified_boxes(network: Network, data: Dataset, radius: float) -> list[bool]:
    """Whether the exact verdict on each point's box is YES."""
    balls = zip((LinfBall(x, radius) for x in data.features), data.labels.tolist(), strict=True)
    ladder = ("dual", "pgd", "exact")
    return [certify(network, ball, label, ladder, time_limit=20).verdict is Verdict.YES for ball, label in balls]


def judge(network: Network, data: Dataset, radius: float, exact: Sequence[bool], grid: int = 41) -> dict[str, Any]:
    """Errors on the points, and how many boxes lie on one side: by a grid, by the dual bound, by the exact verdict.

    exact: what `certified_boxes` says.
    """
    steps = np.linspace(-radius, radius, grid)
    offsets = np.stack(np.meshgrid(steps, steps), -1).reshape(-1, 2)
    one_sided = dual = 0
    for x, label in zip(data.features, data.labels.tolist(), strict=True):
        ball = LinfBall(x, radius)
        one_sided += bool(np.all(network.predict(x + offsets) == label))
        dual += all(bound.certified_lower > 0 for bound in margins(network, ball, label, "dual"))
    return {
        "network": network.name,
        "points": len(data),
        "radius": radius,
        "wrong_points": int(np.sum(network.predict(data.features) != data.labels)),
        "boxes_one_sided_on_grid": one_sided,
        "boxes_certified_dual": dual,
        "boxes_certified_exact": sum(exact),
        "training_seconds": round(float(network.metadata["seconds"]), 2),
    }


def draw(networks: Sequence[Network], data: Dataset, radius: float, certified: Sequence[Sequence[bool]]) -> Figure:
    """Decision regions side by side, with the points and their boxes: filled where certified, dashed where not."""
    low, high = -0.1, 1.1
    axis = np.linspace(low, high, 400)
    plane = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    with paper_style():
        figure, panels = panel_grid(len(networks))
        figure.set_figheight(4.0)
        for panel, network, boxes in zip(panels, networks, certified, strict=True):
            classes = network.predict(plane).reshape(axis.size, axis.size)
            panel.imshow(classes, extent=(low, high, low, high), origin="lower", cmap=ListedColormap(CLASS_COLOURS),
                         alpha=0.45, vmin=0, vmax=1, interpolation="nearest")  # fmt: skip
            for x, label, sure in zip(data.features, data.labels.tolist(), boxes, strict=True):
                panel.add_patch(_box(x - radius, 2 * radius, label, sure))
                panel.plot(*x, MARKERS[label], color=INK, markersize=4)
            panel.grid(visible=False)
            panel.set_title(f"{network.metadata['spec']['loss']} training: {sum(boxes)} of {len(data)} boxes certified")
            panel.set(xlabel="x₁", ylabel="x₂", aspect="equal")
        points = [Line2D([], [], color=INK, marker=marker, linestyle="", markersize=4) for marker in MARKERS]
        boxes_shown = [_box(np.zeros(2), 1.0, None, sure) for sure in (True, False)]
        names = ["point of class 0", "point of class 1", "certified box (exact YES)", "not certified"]
        figure.legend([*points, *boxes_shown], names, loc="outside lower center", ncols=4, frameon=False)
    return figure


def _box(corner: FloatArray, side: float, label: int | None, sure: bool) -> Rectangle:
    """A box of the plane, filled with its class's colour where it is certified; label: None for the legend's grey."""
    fill = (OPEN_GREY if label is None else CLASS_COLOURS[label]) if sure else "none"
    style = "-" if sure else (0, (3, 2))
    return Rectangle((float(corner[0]), float(corner[1])), side, side, facecolor=fill, edgecolor=INK, linestyle=style)


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
        exact = [certified_boxes(network, data, options.radius) for network in networks]
        judged = [judge(network, data, options.radius, boxes) for network, boxes in zip(networks, exact, strict=True)]
        table = pd.DataFrame(judged)
        run.write({"table.csv": table})
        save_figure(draw(networks, data, options.radius, exact), options.out / "toy2d")
        run.record(specs=[network.metadata["spec"] for network in networks])
    return table


if __name__ == "__main__":
    sys.exit(end_experiment(main))
