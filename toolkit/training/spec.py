"""What to train, as data: a TOML file of networks, each with its architecture, loss, schedule and seed.

    [defaults]                      # any key of a network, shared by all of them
    epochs = 30

    [[networks]]
    name = "digits-standard"
    dataset = "digits"
    hidden = [32, 32]
    loss = "standard"

Unknown keys are errors that name the key and the allowed ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from toolkit.data.arguments import one_of
from toolkit.data.names import path_name
from toolkit.data.toml_file import StrictModel, load_toml
from toolkit.runs.spec_fields import Amount, DatasetName, NormName

# The keys of losses.LOSSES, which needs torch.
LOSS_NAMES = (
    "standard", "adversarial", "adversarial-fgsm", "dual", "dual-margin", "interval", "crown-ibp", "mtl-ibp",
)  # fmt: skip
# Keys that came later: left out of records and digests where a spec does not say them.
LATER = ("kappa_end", "beta", "beta_end", "alpha", "warmup")

LARGEST_FACTOR = 1e30  # of a step: torch works in single precision
LARGEST_SEED = 10**14  # times what an epoch adds to it, below 2⁶⁴


class LayerSpec(StrictModel):
    """One hidden layer.

    `{ dense = 100 }`, `{ conv = 16, kernel = 4, stride = 2, padding = 1 }`, `{ max_pool = 2 }` (squares that do not
    overlap), or `{ residual = [{ conv = 8, padding = 1 }, { conv = 8, padding = 1 }] }`: a ReLU behind each of the
    block's layers, before the last of which what the block reads is added, or with skip = "projection", where the block
    changes the shape, a trained map of it: a 1×1 convolution or a matrix.
    """

    dense: int | None = Field(default=None, ge=1)
    conv: int | None = Field(default=None, ge=1)
    max_pool: int | None = Field(default=None, ge=2)
    residual: tuple[LayerSpec, ...] | None = None
    kernel: int = Field(default=3, ge=1)
    stride: int = Field(default=1, ge=1)
    padding: int = Field(default=0, ge=0)
    skip: Literal["identity", "projection"] | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> LayerSpec:
        if sum(kind is not None for kind in (self.dense, self.conv, self.max_pool, self.residual)) != 1:
            raise ValueError(
                "a layer is either dense = WIDTH or conv = CHANNELS or max_pool = WINDOW or residual = [LAYERS]"
            )
        geometry = (self.kernel, self.stride, self.padding)
        if (self.max_pool is not None or self.residual is not None) and geometry != (3, 1, 0):
            raise ValueError("kernel, stride and padding are of convolutions; pooled squares lie side by side")
        if self.skip is not None and self.residual is None:
            raise ValueError(f"skip is a key of residual blocks, got skip = {self.skip!r} elsewhere")
        return self

    @model_validator(mode="after")
    def _block_of_layers(self) -> LayerSpec:
        block = self.residual
        if block is None:
            return self
        if len(block) < 2 or any(entry.residual is not None for entry in block):
            raise ValueError(f"a residual block holds at least two layers and no block, got {len(block)} layers")
        if block[-1].max_pool is not None:
            raise ValueError("a residual block's last layer is dense or conv, to which what the block reads is added")
        return self


def _conv(channels: int) -> LayerSpec:
    return LayerSpec(conv=channels, kernel=4, stride=2, padding=1)


ARCHITECTURES: dict[str, tuple[LayerSpec, ...]] = {
    # Wong & Kolter 2018, §5: two strided convolutions and one hidden dense layer.
    "wong-kolter-small": (_conv(16), _conv(32), LayerSpec(dense=100)),
}


class NetworkSpec(StrictModel):
    """One network to train.

    Architecture: exactly one of hidden (widths of dense layers), layers, or architecture (a name).
    dataset: a name, or a folder of one's own that holds a train and a test split, looked up beside the file.
    eps: radius in input units, also as "8/255"; robust losses train for it, every network is evaluated at it. norm:
    of the ball, linf, l1 or l2.
    ramp: share of the epochs over which a robust loss's radius grows linearly, from min(0.01, eps) to eps. warmup:
    share of the epochs before the ramp, which minimise the clean loss; absent = none.
    domain: the ball's cut, absent = none. kappa: weight of the clean loss beside (1 − kappa)·robust loss; with
    kappa_end it moves there linearly during the ramp.
    beta, beta_end: CROWN's share in the bound of crown-ibp before and after the ramp, absent = 1 and 0. alpha: the
    interval loss's share in mtl-ibp, which needs it.
    projections: Cauchy projections that estimate l,u in dual losses, absent = exact bounds.
    images: train on so many images only, drawn with the seed. lr_decay: the factor by which the learning rate has
    fallen, geometrically, at the last epoch. chunk: images per backward pass (memory), absent = chosen by layer sizes.
    monitor: test images whose robust errors are shown after every epoch. evaluate: test images whose robust errors
    are recorded with the network. device: cpu, cuda, or auto (cuda where there is one). threads: of torch.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    dataset: DatasetName
    hidden: tuple[int, ...] | None = None
    layers: tuple[LayerSpec, ...] | None = None
    architecture: str | None = None
    loss: str = "standard"
    eps: Amount = Field(default=0.0, ge=0, allow_inf_nan=False)
    norm: NormName = "linf"
    domain: tuple[float, float] | None = None
    ramp: float = Field(default=0.5, ge=0, le=1)
    warmup: float | None = Field(default=None, ge=0, le=1)
    kappa: float = Field(default=0.0, ge=0, le=1)
    kappa_end: float | None = Field(default=None, ge=0, le=1)
    beta: float | None = Field(default=None, ge=0, le=1)
    beta_end: float | None = Field(default=None, ge=0, le=1)
    alpha: float | None = Field(default=None, ge=0, le=1)
    attack_steps: int = Field(default=10, ge=1)
    projections: int | None = Field(default=None, ge=1)
    epochs: int = Field(default=20, ge=1)
    batch: int = Field(default=100, ge=1)
    chunk: int | None = Field(default=None, ge=1)
    images: int | None = Field(default=None, ge=1)
    optimizer: Literal["adam", "sgd"] = "adam"
    lr: float = Field(default=1e-3, gt=0, le=LARGEST_FACTOR)
    lr_decay: float = Field(default=1.0, gt=0, le=1)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0, le=LARGEST_FACTOR)
    seed: int = Field(default=0, ge=0, le=LARGEST_SEED)
    monitor: int = Field(default=100, ge=1)
    evaluate: int = Field(default=200, ge=1)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = Field(default=1, ge=1)

    @field_validator("name")
    @classmethod
    def _name_fits_a_path(cls, value: str) -> str:
        return path_name(value, "name")

    @field_validator("loss")
    @classmethod
    def _known_loss(cls, value: str) -> str:
        return one_of("loss", value, LOSS_NAMES)

    @model_validator(mode="after")
    def _robust_needs_eps(self) -> NetworkSpec:
        if self.loss != "standard" and self.eps == 0:
            raise ValueError(f"loss {self.loss!r} needs eps > 0, got {self.eps:g}")
        if self.projections is not None and not self.loss.startswith("dual"):
            raise ValueError(f"projections estimate the bounds of dual losses, got loss {self.loss!r}")
        if self.projections is not None and self.norm != "linf":
            raise ValueError(f"projections estimate bounds over ℓ∞ balls, got norm {self.norm!r}")
        return self

    @model_validator(mode="after")
    def _keys_fit_loss(self) -> NetworkSpec:
        for key, loss in (("beta", "crown-ibp"), ("beta_end", "crown-ibp"), ("alpha", "mtl-ibp")):
            if getattr(self, key) is not None and self.loss != loss:
                raise ValueError(f"{key} is a key of loss {loss!r}, got loss {self.loss!r}")
        if self.loss == "mtl-ibp" and self.alpha is None:
            raise ValueError("loss 'mtl-ibp' needs alpha, the interval loss's share in [0, 1], got none")
        if (self.warmup or 0.0) + self.ramp > 1:
            raise ValueError(f"warmup + ramp must be ≤ 1, got {self.warmup:g} + {self.ramp:g}")
        return self

    @model_validator(mode="after")
    def _one_architecture(self) -> NetworkSpec:
        given = [key for key in ("hidden", "layers", "architecture") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of hidden, layers, architecture; got {', '.join(given) or 'none'}")
        if self.architecture is not None:
            one_of("architecture", self.architecture, tuple(ARCHITECTURES))
        if any(width < 1 for width in self.hidden or ()):
            raise ValueError(f"hidden must be widths ≥ 1, got {list(self.hidden or ())}")
        return self

    @property
    def hidden_layers(self) -> tuple[LayerSpec, ...]:
        """The hidden layers, however they were written."""
        if self.hidden is not None:
            return tuple(LayerSpec(dense=width) for width in self.hidden)
        return self.layers if self.layers is not None else ARCHITECTURES[str(self.architecture)]

    @property
    def record(self) -> dict[str, Any]:
        """The spec as JSON can hold it; keys that records from before lack only where they say something."""
        return self.model_dump(mode="json", exclude_none=True, exclude=self._unsaid)

    @property
    def _unsaid(self) -> set[str]:
        return {key for key in LATER if getattr(self, key) is None} | ({"norm"} if self.norm == "linf" else set())

    @property
    def digest(self) -> str:
        """Short hash of everything that determines the weights on one machine."""
        return hashlib.sha256(self.model_dump_json(exclude=self._unsaid).encode()).hexdigest()[:16]


class TrainSpec(StrictModel):
    """A file of networks to train. defaults: keys of a network that every network has unless it sets them itself."""

    defaults: Mapping[str, Any] = {}
    networks: tuple[NetworkSpec, ...] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _defaults_in_every_network(cls, content: Any) -> Any:
        if not isinstance(content, Mapping) or "networks" not in content:
            return content
        defaults, networks = content.get("defaults", {}), content["networks"]
        if not isinstance(defaults, Mapping) or not isinstance(networks, list | tuple):
            raise ValueError("defaults must be a table and networks a list of tables")
        filled = [{**defaults, **entry} if isinstance(entry, Mapping) else entry for entry in networks]
        return {**content, "networks": filled}

    @model_validator(mode="after")
    def _distinct_names(self) -> TrainSpec:
        names = [network.name for network in self.networks]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"two networks are named {twice!r}")
        return self


def load_train_spec(path: str | Path) -> TrainSpec:
    """Read a training file. Raises FileNotFoundError, or ValueError naming file, key, value and what is allowed."""
    return load_toml(path, TrainSpec, "training")
