"""What an epoch did, and what training leaves of it to look at: progress, the history as CSV and figure, a table of
networks."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from toolkit.data.atomic import write_text
from toolkit.data.names import markdown_text, plot_text
from toolkit.networks.network import Network
from toolkit.runs.outputs import write_files
from toolkit.runs.progress import RunProgress

if TYPE_CHECKING:
    from toolkit.training.spec import NetworkSpec


ERRORS = {"clean": "clean", "fgsm": "FGSM", "pgd": "PGD", "dual": "dual", "interval": "interval"}


@dataclass(frozen=True)
class Epoch:
    """What one epoch did.

    loss: mean over its images. lr, eps: at its end. The errors are shares in [0, 1] of the first test images:
    clean_error, attacked_error (PGD) and certified_error (not certified by the closed-form bound) at the spec's eps,
    by torch in float32, NaN where eps is 0. seconds: of training, not of monitoring.
    """

    epoch: int
    loss: float
    lr: float
    eps: float
    clean_error: float
    attacked_error: float
    certified_error: float
    seconds: float


def show_epoch(display: RunProgress, spec: NetworkSpec, epoch: Epoch) -> None:
    """An epoch's errors on the display, under the network's name."""
    errors = f"error: clean {epoch.clean_error:.1%}"
    if spec.eps > 0:
        errors += f" PGD {epoch.attacked_error:.0%} bound {epoch.certified_error:.0%}"
    display.advance(spec.name, epoch.epoch, spec.epochs, errors)


def write_history(history: Sequence[Epoch], stem: Path) -> None:
    """STEM.csv, a line per epoch, and STEM.png, errors and loss against epochs."""
    table = pd.DataFrame([asdict(epoch) for epoch in history])
    write_files(stem.parent, {f"{stem.name}.csv": table}, "%.6g")
    _draw_curves(history, stem)


def _draw_curves(history: Sequence[Epoch], stem: Path) -> None:
    from toolkit.report import save_figure  # with matplotlib, which training itself does not need
    from toolkit.report.styles import INK, LOOKS, TEXT_GREY, panel_grid, paper_style, shared_legend

    numbers = [epoch.epoch for epoch in history]
    with paper_style():
        figure, (errors,) = panel_grid(1)
        curves = {"clean": (INK, [epoch.clean_error for epoch in history])}
        if not math.isnan(history[-1].certified_error):
            curves["attacked (PGD)"] = LOOKS["pgd"].color, [epoch.attacked_error for epoch in history]
            curves["not certified"] = LOOKS["dual"].color, [epoch.certified_error for epoch in history]
        for label, (colour, shares) in curves.items():
            errors.plot(numbers, [100 * share for share in shares], color=colour, label=label)
        errors.set(xlabel="epoch", ylabel="test error (%)", title=plot_text(stem.name), ylim=(0, 100))
        loss = errors.twinx()
        loss.plot(numbers, [epoch.loss for epoch in history], color=TEXT_GREY, linestyle="--", label="training loss")
        loss.set_ylabel("training loss")
        loss.spines["right"].set_visible(True)
        shared_legend(figure, [errors, loss])
    save_figure(figure, stem)


def write_table(folder: Path, source: str) -> Path:
    """folder/README.md: one row per network there that records how it was trained; a damaged file is named."""
    rows = []
    for path in sorted(folder.glob("*.npz")):
        try:
            network = Network.load(path)
            rows += [_table_row(network)] if "spec" in network.metadata else []
        except (ValueError, KeyError, TypeError, OSError) as error:
            warnings.warn(f"{path} is left out of {folder / 'README.md'}: {error}", stacklevel=2)
    header = ["network", "layers", "data", "loss", "ε", "epochs", *ERRORS.values(), "seconds", "torch"]
    shown = markdown_text(source)
    lines = [header, ["---"] * len(header), *rows]
    text = "\n".join(
        [
            "# Trained networks",
            "",
            f"Written by `relugap train`, last for {shown}; do not edit. Each file holds its weights (float32,",
            "exact in float64) and, as metadata, the full spec, seed, versions and errors:",
            "`Network.load(…).metadata`. Errors are those of the float64 network, in per cent: clean of the whole test",
            "split, the others at radius ε (in units of the pixel range [0, 1]) of its first images, as many as the",
            "spec's `evaluate` says: wrong at an attack's point, or not certified by a rung.",
            "",
            *("| " + " | ".join(map(markdown_text, line)) + " |" for line in lines),
            "",
        ]
    )
    return write_text(folder / "README.md", text)


def _table_row(network: Network) -> list[str]:
    record = network.metadata
    spec, errors = record["spec"], record["errors"]
    sizes = "-".join(str(size) for size in (network.input_size, *network.relu_sizes, network.output_size))
    return [
        network.name,
        sizes,
        spec["dataset"],
        spec["loss"],
        f"{spec['eps']:g}",
        str(spec["epochs"]),
        *(f"{100 * errors[key]:.1f}" if key in errors else "" for key in ERRORS),
        f"{record['seconds']:.0f}",
        record["versions"]["torch"],
    ]
