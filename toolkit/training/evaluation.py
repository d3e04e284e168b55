"""The errors recorded with a trained network: of its float64 form, bounds by the rungs that certify."""

from __future__ import annotations

import numpy as np
import torch

from toolkit.data.datasets import Dataset
from toolkit.networks.network import Network
from toolkit.problems.answers import Verdict
from toolkit.runs.batch import BatchPlan, certify_samples
from toolkit.training.losses import Perturbation, fgsm_points, pgd_points
from toolkit.training.spec import NetworkSpec
from toolkit.training.trainable import as_torch

RECORD_STEPS = 40  # of the PGD whose error is recorded


def network_errors(network: Network, test: Dataset, spec: NetworkSpec) -> dict[str, float]:
    """Shares of test images: misclassified, attacked, not certified; the last three at the spec's eps and domain.

    clean: of the whole split. fgsm, pgd (40 steps): of the first `samples` images, misclassified themselves or at the
    point found, which torch finds and numpy judges. interval, dual: of the same images, not certified by that rung on
    l,u by ("interval",) or ("interval", "dual"), which counts misclassified ones too.
    """
    clean = float(np.mean(network.predict(test.features) != test.labels))
    record: dict[str, float] = {"clean": clean, "clean_samples": len(test)}
    if spec.eps == 0:
        return record
    count = min(spec.evaluate, len(test))
    x, y = test.features[:count], test.labels[:count]
    wrong = network.predict(x) != y
    region = Perturbation(spec.eps, spec.domain, torch.Generator().manual_seed(spec.seed), RECORD_STEPS,
                          norm=spec.norm)  # fmt: skip
    attacked = as_torch(network), torch.tensor(x), torch.tensor(y), region
    for name, attack in (("fgsm", fgsm_points), ("pgd", pgd_points)):
        record[name] = float(np.mean(wrong | (network.predict(attack(*attacked).numpy()) != y)))
    for rung, chain in (("interval", ("interval",)), ("dual", ("interval", "dual"))):
        plan = BatchPlan(spec.eps, spec.domain, (rung,), chain, tighten=(), norm=spec.norm)
        verdicts = certify_samples(network, test, range(count), plan)["verdict"]
        record[rung] = 1.0 - float(np.mean(verdicts == Verdict.YES.value))
    return record | {"samples": count, "eps": spec.eps}
