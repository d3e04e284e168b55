"""What a step of dual training costs: processor seconds and peak memory, exact and with random projections.

    python experiments/training_speed.py --out results/training-speed
    python experiments/training_speed.py --against FOLDER --out results/training-speed

Forward, backward and Adam step of the robust cross-entropy with the dual bound, ε 0.1, ball not cut, fresh weights, one
thread: 784-100-100-10 with a batch of 100 and the 16-32-100 convolutional network of Wong & Kolter 2018 with one of 50,
on mnist5k. FOLDER is a checkout of github.com/locuslab/convex_adversarial (commit 2cd8149 was measured), whose
`robust_loss` then takes the same step from the same weights on the same batch. Every case runs in a process of its own,
since peak memory is a process's; seconds are the least of --repeats steps. An epoch is 60,000 images. Checked: the two
implementations' losses agree. No published values.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from toolkit.cli.experiment import end_experiment, experiment_parser, experiment_run
from toolkit.data.datasets import load_dataset
from toolkit.networks.network import Network
from toolkit.report import pipe_table
from toolkit.training.loop import backward, make_optimizer
from toolkit.training.losses import Perturbation
from toolkit.training.spec import NetworkSpec
from toolkit.training.trainable import parameters, trainable_network

EPS = 0.1
EPOCH = 60_000  # images
PROJECTIONS = 11
OTHER = "convex_adversarial"


@dataclass(frozen=True)
class Setting:
    """A network, as a training file describes it, and the size of its batches."""

    name: str
    batch: int
    architecture: str | None = None
    hidden: tuple[int, ...] | None = None

    def spec(self, projections: int | None) -> NetworkSpec:
        """What one training step is taken from; the rate leaves the weights what they are."""
        return NetworkSpec(
            name="speed", dataset="mnist5k", loss="dual", eps=EPS, epochs=1, batch=self.batch, lr=1e-12,
            architecture=self.architecture, hidden=self.hidden, projections=projections,
        )  # fmt: skip


SETTINGS = (
    Setting("784-100-100-10", 100, hidden=(100, 100)),
    Setting("conv 16-32-100", 50, architecture="wong-kolter-small"),
)
METHODS = ("exact", "projections")


def step_of(setting: Setting, method: str, against: Path | None) -> Callable[[], float]:
    """A function that takes one training step and returns its loss."""
    data = load_dataset("mnist5k", "train")
    x = torch.from_numpy(data.features[: setting.batch].astype("float32"))
    y = torch.from_numpy(data.labels[: setting.batch].copy())
    spec = setting.spec(PROJECTIONS if method == "projections" else None)
    network = trainable_network(spec.hidden_layers, data.shape, data.classes, 0)
    if method == OTHER:
        assert against is not None
        return _other_step(network, x, y, against)
    optimizer = make_optimizer(spec, network)

    def step() -> float:
        region = Perturbation(EPS, None, torch.Generator().manual_seed(0), projections=spec.projections)
        loss = backward(spec, network, optimizer, x, y, region)
        optimizer.step()
        return loss

    return step


class _Flatten(nn.Module):
    """Under the name by which convex_adversarial knows it."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, …) → (B, n)."""
        return x.flatten(1)


def _other_step(network: Network, x: Tensor, y: Tensor, folder: Path) -> Callable[[], float]:
    """The same step by convex_adversarial's robust_loss, on a copy of the weights."""
    warnings.filterwarnings("ignore")
    sys.path.insert(0, str(folder))
    from convex_adversarial import robust_loss

    _Flatten.__name__ = "Flatten"
    if len(network.layers) == 4:
        parts: list[nn.Module] = [nn.Conv2d(1, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.ReLU()]
        model = nn.Sequential(*parts, _Flatten(), nn.Linear(1568, 100), nn.ReLU(), nn.Linear(100, 10))
    else:
        parts = [_Flatten(), nn.Linear(784, 100), nn.ReLU(), nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, 10)]
        model = nn.Sequential(*parts)
    with torch.no_grad():
        for theirs, ours in zip(model.parameters(), parameters(network), strict=True):
            theirs.copy_(ours.reshape(theirs.shape))
    optimizer = torch.optim.Adam(model.parameters(), 1e-12)
    images = x.reshape(-1, 1, 28, 28)

    def step() -> float:
        optimizer.zero_grad()
        loss, _ = robust_loss(model, EPS, images, y)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step


def measure(setting: Setting, method: str, against: Path | None, repeats: int) -> dict[str, Any]:
    """One case, in this process: seconds of the fastest step, the process's peak memory in MB, the loss."""
    torch.set_num_threads(1)
    step = step_of(setting, method, against)
    seconds, loss = [], 0.0
    for _ in range(repeats):
        began = time.process_time()
        loss = step()
        seconds.append(time.process_time() - began)
    return {
        "network": setting.name,
        "batch": setting.batch,
        "method": method,
        "seconds_step": min(seconds),
        "seconds_epoch": min(seconds) * EPOCH / setting.batch,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "loss": loss,
    }


def in_own_process(setting: Setting, method: str, options: argparse.Namespace) -> dict[str, Any]:
    """`measure` in a process of its own."""
    command = [sys.executable, __file__, "--case", setting.name, method, "--repeats", str(options.repeats)]
    if options.against is not None:
        command += ["--against", str(options.against)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ChildProcessError(f"{setting.name}, {method}: {done.stderr.strip().splitlines()[-1]}")
    return dict(json.loads(done.stdout))


def markdown(table: pd.DataFrame) -> str:
    """The table as a page."""
    return (
        f"Dual training, one step: processor seconds, one thread; an epoch is {EPOCH:,} images.\n\n"
        f"{pipe_table(table, digits=3)}"
    )


def main(arguments: Sequence[str] | None = None) -> pd.DataFrame | dict[str, Any]:
    """Measure every case and write table.csv, table.md and provenance.json; returns the table."""
    parser = experiment_parser(__doc__, "training-speed")
    parser.add_argument("--against", type=Path, help="a checkout of convex_adversarial, to be measured as well")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--networks", nargs="+", default=[setting.name for setting in SETTINGS])
    parser.add_argument("--case", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    by_name = {setting.name: setting for setting in SETTINGS}
    if options.case is not None:
        return measure(by_name[options.case[0]], options.case[1], options.against, options.repeats)
    methods = [*METHODS, *([OTHER] if options.against is not None else [])]
    with experiment_run(parser, options) as run:
        cases = [(by_name[name], method) for name in options.networks for method in methods]
        table = pd.DataFrame([in_own_process(*case, options) for case in cases])
        if options.against is not None:
            theirs = table[table["method"] == OTHER].set_index("network")["seconds_step"]
            table["ratio"] = table["seconds_step"] / table["network"].map(theirs)
        run.write({"table.csv": table, "table.md": markdown(table)}, "%.6g")
    return table


if __name__ == "__main__":
    sys.exit(end_experiment(main))
