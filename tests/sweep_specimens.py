"""What the tests of sweeps share: small networks and specs, and rungs that are faulty on purpose."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import random_dense_network

from toolkit.problems.answers import Bound
from toolkit.problems.problem import Problem
from toolkit.rungs import RUNGS
from toolkit.rungs.rung import Rung, Side, each_row
from toolkit.runs.sweep.run import run_sweep
from toolkit.runs.sweep.spec import SweepSpec, parse_spec

VOLATILE = ["seconds", "build_seconds", "bounds_seconds", "run_id"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two small networks on digits."""
    path = tmp_path_factory.mktemp("networks")
    rng = np.random.default_rng(0)
    for name, sizes in (("deep", [64, 8, 8, 10]), ("flat", [64, 10, 10])):
        random_dense_network(rng, sizes, name).save(path / f"{name}.npz")
    return path


def make_spec(folder: Path, **changes: Any) -> SweepSpec:
    content = {
        "name": "test",
        "samples": 3,
        "eps": [0.01, 0.03],
        "domain": [0, 1],
        "rungs": ["interval", "dual", "lp", "exact"],
        "solver": "highs",
        "networks": [
            {"source": str(folder / "deep.npz"), "dataset": "digits"},
            {"source": str(folder / "flat.npz"), "dataset": "digits", "eps": [0.02]},
        ],
    }
    return parse_spec(content | changes)


def zoo_spec(name: str, samples: int | list[int], eps: list[float]) -> str:
    """A spec of three rungs on a network of the zoo, as the text of its file."""
    head = f'name = "{name}"\nsamples = {samples}\neps = {eps}\ndomain = [0, 1]\nsolver = "highs"\n'
    return (
        head
        + """rungs = ["dual", "lp", "exact"]

[[networks]]
source = "zoo:digits-standard"
dataset = "digits"
"""
    )


def write_toml(path: Path, folder: Path, rungs: list[str], samples: int) -> Path:
    tables = "".join(f'[[networks]]\nsource = "{folder / name}.npz"\ndataset = "digits"\n' for name in ("deep", "flat"))
    head = f'name = "t"\nsamples = {samples}\neps = [0.01, 0.02, 0.03]\nsolver = "highs"\nrungs = {json.dumps(rungs)}\n'
    path.write_text(head + tables)
    return path


def run(spec: SweepSpec | Path, out: Path, workers: int = 1, **options: Any) -> pd.DataFrame:
    return run_sweep(spec, out, workers=workers, progress=False, **options)


def assert_same_table(one: pd.DataFrame, other: pd.DataFrame) -> None:
    assert one["key"].is_unique
    pd.testing.assert_frame_equal(one.drop(columns=VOLATILE), other.drop(columns=VOLATILE))


def _raise(_: Problem) -> list[Bound]:
    raise RuntimeError("injected\nsecond line")


def _nan(problem: Problem) -> list[Bound]:
    return [Bound(lower=float("nan")) for _ in problem.targets]


def _too_high(problem: Problem) -> list[Bound]:
    return [Bound(lower=1e6, solver="liar", solver_version="1") for _ in problem.targets]


def _too_few(problem: Problem) -> list[Bound]:
    return [Bound(lower=0.0)]


def _exit(_: Problem) -> list[Bound]:
    os.kill(os.getpid(), signal.SIGKILL)
    return []


def _exit_once(problem: Problem) -> list[Bound]:
    mark = Path(RUNGS["exit_once"].source) / f"{problem.input_set.eps}-{problem.network.name}"
    if not mark.exists():
        mark.write_text("died here once")
        _exit(problem)
    return RUNGS["dual"](problem)


def _sleep(problem: Problem) -> list[Bound]:
    time.sleep(0.05)
    return RUNGS["dual"](problem)


def _sleep_long(problem: Problem) -> list[Bound]:
    if RUNGS["sleep_long"].source:
        (Path(RUNGS["sleep_long"].source) / "asleep").touch()
    time.sleep(1000)
    return []


FAULTS: dict[str, Callable[[Problem], list[Bound]]] = {
    "raise": _raise,
    "nan": _nan,
    "too_high": _too_high,
    "too_few": _too_few,
    "exit": _exit,
    "exit_once": _exit_once,
    "sleep": _sleep,
    "sleep_long": _sleep_long,
}


def register_faults(marks: str = "") -> None:
    """Make the faulty rungs known, here or in a worker process. marks: a folder in which they leave their marks."""
    for name, fault in FAULTS.items():
        RUNGS[name] = Rung(name, Side.LOWER, "faulty on purpose", marks, run=each_row(fault))


@pytest.fixture
def faults() -> Iterator[None]:
    register_faults()
    yield
    for name in FAULTS:
        del RUNGS[name]
