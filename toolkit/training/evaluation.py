"""The errors recorded with a trained network: of its float64 form, bounds by the rungs that certify."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from toolkit.data.datasets import Dataset
from toolkit.networks.network import Network
from toolkit.problems.input_sets import LinfBall
from toolkit.training.losses import Perturbation, fgsm_points, pgd_points
from toolkit.training.spec import NetworkSpec
from toolkit.training.trainable import as_torch
from toolkit.verify.layer_bounds import layer_bounds
from toolkit.verify.margins import margins
from toolkit.verify.verdict import is_safe

RECORD_STEPS = 40  # of the PGD whose error is recorded


def evaluate(network: Network, test: Dataset, spec: NetworkSpec) -> dict[str, Any]:
    """Shares of test images: misclassified, attacked, not certified; the last three at the spec's eps and domain.

    clean: of the whole split. fgsm, pgd (40 steps): of the first `samples` images, misclassified themselves or at the
    point found, which torch finds and numpy judges. interval, dual: of the same images, not certified by that rung on
    l,u by ("interval",) or ("interval", "dual"), which counts misclassified ones too.
    """
    clean = float(np.mean(network.predict(test.features) != test.labels))
    record: dict[str, Any] = {"clean": clean, "clean_samples": len(test)}
    if spec.eps == 0:
        return record
    count = min(spec.evaluate, len(test))
    x, y = test.features[:count], test.labels[:count]
    wrong = network.predict(x) != y
    region = Perturbation(spec.eps, spec.domain, torch.Generator().manual_seed(spec.seed), RECORD_STEPS)
    attacked = as_torch(network), torch.tensor(x), torch.tensor(y), region
    for name, attack in (("fgsm", fgsm_points), ("pgd", pgd_points)):
        record[name] = float(np.mean(wrong | (network.predict(attack(*attacked).numpy()) != y)))
    for rung, chain in (("interval", ("interval",)), ("dual", ("interval", "dual"))):
        certified = [
            _certified(network, LinfBall(x[i], spec.eps, spec.domain), int(y[i]), rung, chain) for i in range(count)
        ]
        record[rung] = 1.0 - float(np.mean(certified))
    return record | {"samples": count, "eps": spec.eps}


def _certified(network: Network, ball: LinfBall, label: int, rung: str, chain: tuple[str, ...]) -> bool:
    bounds = margins(network, ball, label, rung, layer_bounds(network, ball, chain))
    return all(is_safe(bound.certified_lower) for bound in bounds)
