"""What changes while a network is trained: learning rate, radius, and the shares of mixed losses.

`done` counts epochs, a fraction within one. A warm-up minimises the clean loss; then radius and shares move linearly
over the ramp and stay.
"""

from __future__ import annotations

import math

from toolkit.training.spec import NetworkSpec

FIRST_RADIUS = 0.01  # where the ramp of ε starts, as published


def learning_rate(spec: NetworkSpec, epoch: int) -> float:
    """lr·lr_decay^((epoch − 1)/(epochs − 1)): from lr in the first epoch to lr·lr_decay in the last."""
    return spec.lr * math.pow(spec.lr_decay, (epoch - 1) / max(1, spec.epochs - 1))


def ramped(spec: NetworkSpec, done: float) -> float:
    """The share of the ramp that lies behind after `done` epochs (a fraction within one); negative during warm-up."""
    since = done - (spec.warmup or 0.0) * spec.epochs
    return 1.0 if spec.ramp == 0 and since >= 0 else min(1.0, since / (spec.ramp * spec.epochs or 1.0))


def radius(spec: NetworkSpec, done: float) -> float:
    """ε after `done` epochs: 0 during warm-up, then linear from min(0.01, eps) to eps over ramp·epochs."""
    first, share = min(FIRST_RADIUS, spec.eps), ramped(spec, done)
    if share < 0:
        return 0.0
    return spec.eps if share == 1.0 else first + (spec.eps - first) * share


def clean_share(spec: NetworkSpec, done: float) -> float:
    """κ after `done` epochs: linear from kappa to kappa_end during the ramp, constant without kappa_end."""
    return spec.kappa if spec.kappa_end is None else _between(spec.kappa, spec.kappa_end, spec, done)


def crown_share(spec: NetworkSpec, done: float) -> float:
    """β after `done` epochs: linear from beta (absent: 1) to beta_end (absent: 0) during the ramp."""
    ends = (1.0 if spec.beta is None else spec.beta, 0.0 if spec.beta_end is None else spec.beta_end)
    return _between(*ends, spec, done)


def _between(first: float, last: float, spec: NetworkSpec, done: float) -> float:
    share = max(0.0, ramped(spec, done))
    return last if share == 1.0 else first + (last - first) * share
