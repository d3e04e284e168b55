"""One training loop; what is minimised comes in as a function from losses.py.

Same spec, same machine: same weights. Every random draw comes from the spec's seed and the
epoch, so that training resumed from a checkpoint ends where uninterrupted training ends.
"""

from __future__ import annotations

import contextlib
import math
import platform
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from toolkit.arrays import FloatArray
from toolkit.data.arguments import check_writable, own_path
from toolkit.data.datasets import Dataset, data_beside, load_dataset
from toolkit.data.toml_file import spec_path
from toolkit.networks.class_names import CLASS_NAMES
from toolkit.networks.network import Network
from toolkit.runs.progress import RunProgress
from toolkit.training.bounds import BoundMethod, seen_on_patches
from toolkit.training.checkpoint import load_checkpoint, save_checkpoint
from toolkit.training.curves import Epoch, show_epoch, write_history, write_table
from toolkit.training.evaluation import network_errors
from toolkit.training.losses import LOSSES, Perturbation, at_radius, pgd_points, robust_margins, standard
from toolkit.training.schedules import clean_share, crown_share, learning_rate, radius
from toolkit.training.spec import NetworkSpec, load_train_spec
from toolkit.training.trainable import frozen, parameters, trainable_network
from toolkit.training.training_data import check_splits, data_digests, known_digests, training_device

CHUNK_NUMBERS = 4_000_000  # of the largest array a dual loss holds per backward pass, which bounds memory


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

    only: names to train, None = all. A network already there that was made by the same spec of the same data is left
    alone unless `force`. Beside the networks: README.md (a table of all networks in out_dir), history/NAME.csv and
    .png, and while a network trains checkpoints/NAME.pt, from which a stopped training goes on. Raises ValueError,
    before any is trained, for a bad file, an unknown name in `only`, data that do not fit, networks that do not fit the
    data; and for a loss that is not finite.
    """
    folder, source = own_path(out_dir), own_path(path)
    specs = load_train_spec(source).networks
    unknown = sorted(set(only or ()) - {spec.name for spec in specs})
    if unknown:
        raise ValueError(f"no network {unknown[0]!r} in {path}; allowed: {', '.join(spec.name for spec in specs)}")
    chosen = [spec for spec in specs if only is None or spec.name in only]
    read = partial(_splits, spec_path(source).resolve().parent)
    waiting = [spec for spec in chosen if force or not _made_by(folder / f"{spec.name}.npz", spec, read)]
    for spec in waiting:
        check_writable(folder / f"{spec.name}.npz")
        training, test = read(spec)
        check_splits(spec, training, test)
        _fresh(spec, training)
    for spec in waiting:
        _train_into(folder, spec, *read(spec), progress)
    write_table(folder, source.name if source.is_absolute() else source.as_posix())
    return [folder / f"{spec.name}.npz" for spec in chosen]


def _splits(folder: Path, spec: NetworkSpec) -> tuple[Dataset, Dataset]:
    """The training and test images of a spec whose paths are looked up in a folder."""
    place = data_beside(spec.dataset, folder)
    return load_dataset(place, "train", spec.domain), load_dataset(place, "test", spec.domain)


def _train_into(folder: Path, spec: NetworkSpec, training: Dataset, test: Dataset, progress: bool) -> None:
    """One network with its record and history; its checkpoint goes when it is there."""
    checkpoint = folder / "checkpoints" / f"{spec.name}.pt"
    with RunProgress(progress) as display:
        trained = train(spec, training, test, partial(show_epoch, display, spec), checkpoint)
    write_history(trained.history, folder / "history" / spec.name)
    record = _metadata(spec, trained, training, test)
    frozen(trained.network, spec.name, record).save(folder / f"{spec.name}.npz")
    checkpoint.unlink()
    with contextlib.suppress(OSError):  # others may still train into the folder
        checkpoint.parent.rmdir()


def _made_by(target: Path, spec: NetworkSpec, read: Callable[[NetworkSpec], tuple[Dataset, Dataset]]) -> bool:
    """Whether the file holds a network of this spec, and of these data where it says of which; one that cannot be read
    is named, and trained again."""
    if not target.is_file():
        return False
    try:
        record = Network.load(target).metadata
    except ValueError as error:
        warnings.warn(f"{error}; it is trained again", stacklevel=3)
        return False
    if record.get("spec") != spec.record or "data" not in record:
        return bool(record.get("spec") == spec.record)
    return known_digests(record, data_digests(*read(spec)))


def _metadata(spec: NetworkSpec, trained: Trained, training: Dataset, test: Dataset) -> dict[str, Any]:
    """The record kept with a network; of data with a fixed name, or without names of classes, these are left out."""
    own = {"data": data_digests(training, test), CLASS_NAMES: list(training.class_names)}
    return {
        "spec": spec.record,
        **{key: value for key, value in own.items() if value},
        "errors": network_errors(frozen(trained.network), test, spec),
        "seconds": round(trained.seconds, 2),
        "seconds_per_epoch": round(trained.seconds / spec.epochs, 3),
        "versions": {name: version(name) for name in ("relugap", "torch", "numpy")}
        | {"python": platform.python_version()},
        "device": str(training_device(spec)),
    }


def train(
    spec: NetworkSpec,
    training: Dataset,
    test: Dataset,
    on_epoch: Callable[[Epoch], None] | None = None,
    checkpoint: Path | None = None,
) -> Trained:
    """Minimise the spec's loss over the training images.

    checkpoint: file written after every epoch; training goes on from it when it is there. Raises ValueError for a
    loss that is not finite (naming epoch, batch and ε), data that do not fit, or a checkpoint of other data or of
    another spec.
    """
    check_splits(spec, training, test)
    with _threads(spec.threads):
        return _train(spec, training, test, on_epoch, checkpoint)


def _train(
    spec: NetworkSpec,
    training: Dataset,
    test: Dataset,
    on_epoch: Callable[[Epoch], None] | None,
    checkpoint: Path | None,
) -> Trained:
    device, data = training_device(spec), data_digests(training, test)
    network = _fresh(spec, training)
    x, y = _tensors(training, _chosen_images(spec, training), device)
    watched = _tensors(test, slice(None), device)
    optimizer = make_optimizer(spec, network)
    before = load_checkpoint(checkpoint, spec.digest, parameters(network), optimizer, data)
    history = [Epoch(**done) for done in before]
    for number in range(len(history) + 1, spec.epochs + 1):
        started = time.perf_counter()
        loss = _run_epoch(spec, network, optimizer, x, y, number)
        seconds = time.perf_counter() - started
        with torch.no_grad():
            clean, attacked, certified = _monitored_errors(spec, network, *watched)
        lr, eps = learning_rate(spec, number), radius(spec, number)
        history.append(Epoch(number, loss, lr, eps, clean, attacked, certified, seconds))
        if checkpoint is not None:
            done = [asdict(epoch) for epoch in history]
            save_checkpoint(checkpoint, spec.digest, parameters(network), optimizer, done, data)
        if on_epoch is not None:
            on_epoch(history[-1])
    return Trained(network, tuple(history))


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    """Torch restricted to so many threads, for as long as the block runs."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _fresh(spec: NetworkSpec, training: Dataset) -> Network:
    """The spec's network for these images, before its first step. Raises ValueError where it does not fit them."""
    try:
        return trainable_network(
            spec.hidden_layers, training.shape, training.classes, spec.seed, device=training_device(spec)
        )
    except ValueError as error:
        raise ValueError(f"{spec.name}: {error}") from error


def _chosen_images(spec: NetworkSpec, training: Dataset) -> Any:
    if spec.images is None or spec.images >= len(training):
        return slice(None)
    return np.sort(np.random.default_rng(spec.seed).permutation(len(training))[: spec.images])


def _tensors(data: Dataset, chosen: Any, device: torch.device) -> tuple[Tensor, Tensor]:
    """Images as flat float32 vectors, and their classes."""
    pixels: FloatArray = data.features[chosen]
    return torch.from_numpy(pixels.astype(np.float32)).to(device), torch.from_numpy(data.labels[chosen].copy()).to(
        device
    )


def make_optimizer(spec: NetworkSpec, network: Network) -> torch.optim.Optimizer:
    """The spec's optimizer of the network's weights, at the learning rate it starts with."""
    weights = parameters(network)
    if spec.optimizer == "adam":
        return torch.optim.Adam(weights, spec.lr, weight_decay=spec.weight_decay)
    return torch.optim.SGD(weights, spec.lr, momentum=spec.momentum, weight_decay=spec.weight_decay)


def _run_epoch(
    spec: NetworkSpec, network: Network, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, number: int
) -> float:
    """One pass over the images in a fresh order; the mean loss."""
    generator = torch.Generator().manual_seed(spec.seed * 100_003 + number)
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(spec, number)
    batches = torch.randperm(len(y), generator=generator).split(spec.batch)
    total = 0.0
    for step, batch in enumerate(batches):
        done = number - 1 + step / len(batches)
        region = region_of(spec, done, generator)
        loss = backward(spec, network, optimizer, x[batch], y[batch], region, clean_share(spec, done))
        if not math.isfinite(loss):
            raise ValueError(
                f"{spec.name}: the loss became {loss} in epoch {number}, batch {step}, at eps {region.eps:g}; "
                f"lower lr (now {spec.lr:g}) or raise ramp (now {spec.ramp:g})"
            )
        optimizer.step()
        total += loss * len(batch)
    return total / len(y)


def region_of(spec: NetworkSpec, done: float, generator: torch.Generator) -> Perturbation:
    """The balls after `done` epochs, and the shares of a mixed loss."""
    found = Perturbation(
        radius(spec, done), spec.domain, generator, spec.attack_steps, spec.projections, spec.norm,
        crown_share(spec, done),
    )  # fmt: skip
    return found if spec.alpha is None else replace(found, alpha=spec.alpha)


def backward(
    spec: NetworkSpec,
    network: Network,
    optimizer: torch.optim.Optimizer,
    x: Tensor,
    y: Tensor,
    region: Perturbation,
    kappa: float | None = None,
) -> float:
    """Leave the gradient of the mean of kappa·clean + (1 − kappa)·robust loss in the weights; returns that mean.

    kappa: None = the spec's. At radius 0, the warm-up's, the loss is the clean one. Chunk by chunk, which bounds
    memory: spec.chunk images, or as many as keep a dual loss's arrays small.
    """
    optimizer.zero_grad()
    chunk = spec.chunk or _chunk(spec, network)
    kappa = spec.kappa if kappa is None else kappa
    robust = spec.loss != "standard" and region.eps > 0
    total = 0.0
    for part_x, part_y in zip(x.split(chunk), y.split(chunk), strict=True):
        loss = (LOSSES[spec.loss] if robust else standard)(network, part_x, part_y, region).sum()
        if kappa > 0 and robust:
            loss = (1 - kappa) * loss + kappa * standard(network, part_x, part_y, region).sum()
        loss = loss / len(y)
        loss.backward()
        total += float(loss.detach())
    return total


def _chunk(spec: NetworkSpec, network: Network) -> int:
    """Images per backward pass: what keeps a dual loss's rows × neurons below CHUNK_NUMBERS."""
    if not spec.loss.startswith("dual") or spec.projections is not None:
        return spec.batch
    stages = network.stages
    rows = max(stage.output_size for k, stage in enumerate(stages) if k and not seen_on_patches(stages, k))
    widest = max(layer.input_size for layer in network.maps)
    return max(1, min(spec.batch, CHUNK_NUMBERS // (rows * widest)))


def _monitored_errors(spec: NetworkSpec, network: Network, x: Tensor, y: Tensor) -> tuple[float, float, float]:
    """Clean error on all images, attacked and certified error on the first `monitor` of them, at the final ε."""
    clean = _share([network.forward(part).argmax(-1) for part in x.split(1000)], y)
    if spec.eps == 0:
        return clean, math.nan, math.nan
    region = at_radius(
        Perturbation(0.0, spec.domain, torch.Generator().manual_seed(spec.seed), spec.attack_steps, norm=spec.norm),
        spec.eps,
    )
    few_x, few_y = x[: spec.monitor], y[: spec.monitor]
    attacked = network.forward(pgd_points(network, few_x, few_y, region)).argmax(-1)
    method: BoundMethod = "interval" if spec.loss in ("interval", "crown-ibp") else "dual"
    parts = zip(few_x.split(10), few_y.split(10), strict=True)
    margins = torch.cat([robust_margins(network, px, py, region, method) for px, py in parts])
    others = margins.scatter(1, few_y[:, None], math.inf)
    return clean, _share([attacked], few_y), float((others.amin(1) <= 0).double().mean())


def _share(predicted: list[Tensor], y: Tensor) -> float:
    return float((torch.cat(predicted) != y).double().mean())
