"""What milp_comparison.py asks: the networks, their samples, and the chains for l,u."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from toolkit.data.datasets import load_dataset
from toolkit.data.registry import data_folder
from toolkit.networks.network import Network
from toolkit.problems.input_sets import LinfBall
from toolkit.problems.problem import Problem
from toolkit.problems.settings import Settings
from toolkit.verify.layer_bounds import layer_bounds
from toolkit.verify.margins import margin_problem

GAP = 1e-4  # absolute, of every MILP
SECONDS = 10.0  # a MILP margin
MILPS = 2  # targets of a sample
CHAINS = {  # of l,u, each tighter than the one before
    "interval": ("interval",),
    "dual": ("interval", "dual"),
    "LP": ("interval", "dual", "lp"),
    "tree": ("interval", "dual", "crown", "bab"),
}


@dataclass(frozen=True)
class Case:
    """One network. chain: of l,u, a name of CHAINS. samples, full: how many, and for how many of them the full
    formulation is solved too. study: whether all chains are compared."""

    source: str
    dataset: str
    eps: tuple[float, ...]
    chain: str = "dual"
    samples: int = 5
    full: int = 5
    study: bool = False

    @property
    def name(self) -> str:
        """As in the table."""
        return self.source.partition(":")[2] if ":" in self.source else self.source.rpartition("/")[2]


CASES = (
    Case("zoo:digits-standard", "digits", (0.02, 0.05)),
    Case("zoo:digits-adversarial", "digits", (0.03, 0.08), study=True),
    Case("zoo:digits-dual", "digits", (0.06, 0.12)),
    Case("zoo:digits-interval", "digits", (0.06, 0.12)),
    Case("zoo:mnist5k-standard", "mnist5k", (0.01, 0.02), study=True),
    Case("zoo:mnist5k-adversarial", "mnist5k", (0.02, 0.04)),
    Case("zoo:mnist5k-dual", "mnist5k", (0.06, 0.12)),
    Case("zoo:mnist5k-interval", "mnist5k", (0.06, 0.12)),
    Case("published:salman-2019/LPD_MLP_B_0.1", "mnist", (0.1,), "LP", 10, 2),
    Case("published:salman-2019/ADV_MLP_B_0.1", "mnist", (0.1,), "LP", 10, 2),
    Case("published:salman-2019/NOR_MLP_B", "mnist", (0.02,), "LP", 5, 1, study=True),
    Case("published:wong-kolter-2018/mnist", "mnist", (0.1,), "LP", 5, 1, study=True),
    Case("vnncomp/mnistfc/mnist-net_256x2.onnx.gz", "mnist", (0.02,), "LP", 5, 1),
)


def load_network(case: Case) -> Network:
    """The case's network: by name, or a file in the data folder."""
    return Network.load(case.source if ":" in case.source else data_folder() / case.source)


@dataclass(frozen=True)
class Question:
    """A sample of a case at one ε, with l,u of any chain. targets: all, those with the largest logits first."""

    network: Network
    ball: LinfBall
    sample: int
    label: int
    targets: list[int]
    settings: Settings

    def problem(self, chain: str) -> tuple[Problem, float]:
        """Its margins on l,u of a chain in CHAINS, and the CPU seconds that l,u took."""
        started = time.process_time()
        bounds = layer_bounds(self.network, self.ball, CHAINS[chain], replace(self.settings, time_limit=None))
        spent = time.process_time() - started
        return margin_problem(self.network, self.ball, self.label, bounds, self.targets, self.settings), spent


def questions(case: Case, eps: float, count: int) -> Iterator[Question]:
    """The first `count` samples to be asked about: classified correctly, and the dual's l,u leave a ReLU unstable."""
    network, data = load_network(case), load_dataset(case.dataset)
    settings = Settings(solver="highs", mip_gap=0.0, mip_gap_abs=GAP, time_limit=SECONDS)
    found = 0
    for sample, (x, label) in enumerate(zip(data.features, data.labels.tolist(), strict=True)):
        if found == count:
            return
        if network.predict(x) != label:
            continue
        ball = LinfBall(x, eps, data.domain)
        if not any(unstable for unstable, _, _ in layer_bounds(network, ball, CHAINS["dual"]).counts()):
            continue
        found += 1
        targets = [int(t) for t in network.forward(x).argsort()[::-1] if t != label]
        yield Question(network, ball, sample, label, targets, settings)
