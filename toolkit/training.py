"""One training loop; what is minimised comes in as a function from losses.py.

Same spec, same machine, same number of threads: same weights. Every random draw comes from the spec's seed and the
epoch, so that training resumed from a checkpoint ends where uninterrupted training ends.
"""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from toolkit.balls import FloatArray
from toolkit.data import Dataset, load_dataset
from toolkit.losses import LOSSES, Region
from toolkit.network import Network
from toolkit.trainable import frozen, parameters, trainable_network
from toolkit.training_report import epoch_display, write_history, write_table
from toolkit.training_spec import NetworkSpec, load_train_spec

MONITORED = 500  # test images whose errors are shown after every epoch


@dataclass(frozen=True)
class Epoch:
    """What one epoch did: mean loss over its batches, learning rate and ε at its end, error rates in [0, 1]."""

    epoch: int
    loss: float
    lr: float
    eps: float
    clean_error: float
    seconds: float


@dataclass(frozen=True)
class Trained:
    """The network with its torch weights, and what every epoch did."""

    network: Network
    history: tuple[Epoch, ...]

    @property
    def seconds(self) -> float:
        """Time spent in epochs, monitoring left out."""
        return sum(epoch.seconds for epoch in self.history)


def train_spec(
    path: str | Path, out_dir: str | Path, only: Sequence[str] | None = None, progress: bool = True, force: bool = False
) -> list[Path]:
    """Train the networks of a training file and save each as out_dir/NAME.npz, with how it was made as metadata.

    only: names to train, None = all. A network already there that was made by the same spec is left alone unless
    `force`. Beside the networks: README.md (a table of all networks in out_dir) and history/NAME.csv and .png.
    Raises ValueError for a bad file, an unknown name in `only`, or a loss that is not finite.
    """
    folder = Path(out_dir)
    specs = load_train_spec(path).networks
    unknown = sorted(set(only or ()) - {spec.name for spec in specs})
    if unknown:
        raise ValueError(f"no network {unknown[0]!r} in {path}; allowed: {', '.join(spec.name for spec in specs)}")
    chosen = [spec for spec in specs if only is None or spec.name in only]
    written = []
    for spec in chosen:
        target = folder / f"{spec.name}.npz"
        if force or not _made_by(target, spec):
            training, test = load_dataset(spec.dataset, "train"), load_dataset(spec.dataset, "test")
            with epoch_display(spec, progress) as show:
                trained = train(spec, training, test, show)
            write_history(trained.history, folder / "history" / spec.name)
            frozen(trained.network, spec.name, _metadata(spec, trained, test)).save(target)
        written.append(target)
    write_table(folder, Path(path).as_posix())
    return written


def _made_by(target: Path, spec: NetworkSpec) -> bool:
    return target.is_file() and Network.load(target).metadata.get("spec") == spec.record


def _metadata(spec: NetworkSpec, trained: Trained, test: Dataset) -> dict[str, Any]:
    """The record kept with a network; its errors are of the float64 network on the whole test split."""
    network = frozen(trained.network)
    wrong = network.predict(test.features) != test.labels
    return {
        "spec": spec.record,
        "errors": {"clean": float(np.mean(wrong)), "samples": len(test)},
        "seconds": round(trained.seconds, 2),
        "versions": {name: version(name) for name in ("relugap", "torch", "numpy")} | {"python": _python()},
        "threads": torch.get_num_threads(),
    }


def _python() -> str:
    return platform.python_version()


def train(
    spec: NetworkSpec, training: Dataset, test: Dataset, on_epoch: Callable[[Epoch], None] | None = None
) -> Trained:
    """Minimise the spec's loss over the training images. Raises ValueError for a loss that is not finite."""
    network = trainable_network(spec.hidden_layers, training.shape, training.classes, spec.seed)
    x, y = tensors(training, spec.images)
    watched = tensors(test, MONITORED)
    optimizer = _optimizer(spec, network)
    history: list[Epoch] = []
    for number in range(1, spec.epochs + 1):
        started = time.perf_counter()
        loss = _run_epoch(spec, network, optimizer, x, y, number)
        seconds = time.perf_counter() - started
        error = clean_error(network, *watched)
        history.append(Epoch(number, loss, learning_rate(spec, number), spec.eps, error, seconds))
        if on_epoch is not None:
            on_epoch(history[-1])
    return Trained(network, tuple(history))


def tensors(data: Dataset, count: int | None = None) -> tuple[Tensor, Tensor]:
    """The first `count` images as flat float32 vectors, and their classes."""
    pixels: FloatArray = data.features[:count]
    return torch.from_numpy(pixels.astype(np.float32)), torch.from_numpy(data.labels[:count].copy())


def learning_rate(spec: NetworkSpec, epoch: int) -> float:
    """lr·lr_decay^((epoch − 1)/(epochs − 1)): from lr in the first epoch to lr·lr_decay in the last."""
    return spec.lr * math.pow(spec.lr_decay, (epoch - 1) / max(1, spec.epochs - 1))


def clean_error(network: Network, x: Tensor, y: Tensor) -> float:
    """Share of images that the network gets wrong."""
    with torch.no_grad():
        wrong = torch.cat([network.forward(part).argmax(-1) for part in x.split(1000)]) != y
    return float(wrong.double().mean())


def _run_epoch(
    spec: NetworkSpec, network: Network, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, number: int
) -> float:
    """One pass over the images in a fresh order; the mean loss."""
    generator = torch.Generator().manual_seed(spec.seed * 100_003 + number)
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(spec, number)
    total = 0.0
    for step, chosen in enumerate(torch.randperm(len(y), generator=generator).split(spec.batch)):
        optimizer.zero_grad()
        region = Region(spec.eps, spec.domain, generator)
        loss = LOSSES[spec.loss](network, x[chosen], y[chosen], region).mean()
        if not torch.isfinite(loss):
            raise ValueError(
                f"{spec.name}: the loss became {float(loss)} in epoch {number}, batch {step}, at eps {region.eps:g}; "
                f"lower lr (now {spec.lr:g}) or raise it more slowly"
            )
        loss.backward()
        optimizer.step()
        total += float(loss.detach()) * len(chosen)
    return total / len(y)


def _optimizer(spec: NetworkSpec, network: Network) -> torch.optim.Optimizer:
    weights = parameters(network)
    if spec.optimizer == "adam":
        return torch.optim.Adam(weights, spec.lr, weight_decay=spec.weight_decay)
    return torch.optim.SGD(weights, spec.lr, momentum=spec.momentum, weight_decay=spec.weight_decay)
