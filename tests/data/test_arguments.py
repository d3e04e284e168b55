"""What a caller hands in by mistake is a ValueError that names the parameter and what was meant, at every entry."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toolkit import Dense, LinfBall, Network, Settings, certified_radius, certify, layer_bounds, load_dataset, margins
from toolkit.certificates.check import check_proof
from toolkit.data.arguments import class_targets, real_number, whole_number
from toolkit.problems.bounds import ReluBounds
from toolkit.problems.problem import Problem
from toolkit.problems.properties import margin_rows
from toolkit.runs.batch import BatchPlan, certify_samples
from toolkit.runs.run import gather
from toolkit.runs.store import read_rows
from toolkit.runs.sweep.run import run_sweep
from toolkit.verify.explain import explain_equality
from toolkit.verify.margins import margin_problem
from toolkit.verify.prove import write_proof

X = np.array([0.9, 0.1, 0.2])
NETWORK, BALL = Network([Dense(np.eye(3))]), LinfBall(X, 0.1, (0, 1))
ONE_OUTPUT = Network([Dense(np.ones((2, 3))), Dense(np.ones((1, 2)))])
ENTRIES: dict[str, Callable[[Any, Any, Any], Any]] = {
    "certify": certify,
    "margins": lambda network, ball, label: margins(network, ball, label, "dual"),
    "margin_problem": margin_problem,
    "certified_radius": lambda network, ball, label: certified_radius(network, X if ball is BALL else ball, label),
    "write_proof": lambda network, ball, label: write_proof("never.npz", network, ball, label),
}


class Module:
    """Looks like a torch module."""

    def state_dict(self) -> dict[str, Any]:
        return {}


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize(
    "label", ["0", 0.0, None, True, np.True_, np.array([1, 0, 0]), X, [0], -1, 3, 1j, float("nan"), 10**30]
)
def test_labels_that_are_no_class_are_refused(entry: str, label: object) -> None:
    with pytest.raises(ValueError, match="label must be"):
        ENTRIES[entry](NETWORK, BALL, label)


@pytest.mark.parametrize("label", [np.int64(0), np.uint8(0), np.array(0)])
def test_labels_of_other_libraries_are_numbers(label: object) -> None:
    assert certify(NETWORK, BALL, label).label == 0  # type: ignore[arg-type]
    assert [bound.target for bound in margins(NETWORK, BALL, label, "dual")] == [1, 2]  # type: ignore[arg-type]


def test_a_one_hot_label_is_told_how_to_become_one() -> None:
    with pytest.raises(ValueError, match=r"ndarray of shape \(3,\); .*int\(label\.argmax\(\)\)"):
        certify(NETWORK, BALL, np.array([1.0, 0.0, 0.0]))  # type: ignore[arg-type]


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize(
    ("network", "told"),
    [
        (Module(), r"got .*Network\.from_torch\(module\)"),
        ("zoo:digits-standard", r"got 'zoo:digits-standard'; .*Network\.load"),
        (Path("net.npz"), r"Network\.load"),
        (X, r"got ndarray of shape \(3,\)"),
        ([Dense(np.eye(3))], r"Network\(layers\)"),
        (None, "got None"),
    ],
)
def test_something_else_where_a_network_is_meant(entry: str, network: object, told: str) -> None:
    with pytest.raises(ValueError, match=f"network must be a Network, .*{told}|network must be a Network, {told}"):
        ENTRIES[entry](network, BALL, 0)


@pytest.mark.parametrize("entry", [name for name in ENTRIES if name != "certified_radius"])
@pytest.mark.parametrize("ball", [X, [0.9, 0.1, 0.2], None, (X, 0.1), "x"])
def test_an_array_where_a_ball_is_meant(entry: str, ball: object) -> None:
    with pytest.raises(ValueError, match=r"ball must be (an input set such as )?a LinfBall, got .*LinfBall\(x, eps\)"):
        ENTRIES[entry](NETWORK, ball, 0)
    with pytest.raises(ValueError, match="ball must be"):
        layer_bounds(NETWORK, ball)  # type: ignore[arg-type]


@pytest.mark.parametrize("entry", ENTRIES)
def test_one_output_has_no_classes(entry: str) -> None:
    for label in (0, 1):
        with pytest.raises(ValueError, match=r"at least two outputs \(classes\), the network has 1 output"):
            ENTRIES[entry](ONE_OUTPUT, BALL, label)
    data = load_dataset("digits")
    wide = Network([Dense(np.ones((1, 64)))])
    with pytest.raises(ValueError, match="at least two outputs"):
        certify_samples(wide, data, [0], BatchPlan(0.1))


def test_labels_beyond_the_outputs_are_refused_before_the_batch() -> None:
    data = load_dataset("digits")
    narrow = Network([Dense(np.ones((5, 64)))])
    asked: list[object] = []
    first = int(np.flatnonzero(data.labels >= 5)[0])
    with pytest.raises(ValueError, match=f"digits has label {data.labels[first]}, the network has 5 classes"):
        certify_samples(narrow, data, range(first + 1), BatchPlan(0.1), progress=asked.append)
    assert asked == []


@pytest.mark.parametrize(
    "eps", ["0.1", None, [0.1, -0.2, 0.3], [0.1, 0.2], True, 1j, [], {}, -0.1, float("nan"), float("inf")]
)
def test_radii_that_are_no_number_are_refused(eps: object) -> None:
    with pytest.raises(ValueError, match="eps must be"):
        LinfBall(X, eps)  # type: ignore[arg-type]


@pytest.mark.parametrize("eps", [np.float64(0.25), np.float32(0.25), np.array(0.25), np.array([0.25]), Fraction(1, 4)])
def test_radii_of_other_libraries_are_numbers(eps: object) -> None:
    assert LinfBall(X, eps).eps == 0.25  # type: ignore[arg-type]
    assert type(LinfBall(X, eps).eps) is float  # type: ignore[arg-type]


@pytest.mark.parametrize("center", [None, "abc", ["0.5"], [1, [2]], Module(), [1j], {}, [None], []])
def test_centres_that_are_no_array_of_numbers(center: object) -> None:
    with pytest.raises(ValueError, match="center must"):
        LinfBall(center, 0.1)  # type: ignore[arg-type]


@pytest.mark.parametrize("domain", ["01", (0,), (0, 1, 2), ("a", "b"), (None, 1), 3, {0, 1}, ([0, 0], [1, 1]), (1, 0)])
def test_domains_that_are_no_pair(domain: object) -> None:
    with pytest.raises(ValueError, match="domain must"):
        LinfBall(X, 0.1, domain)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("solver", None), ("solver", 3), ("time_limit", "5"), ("time_limit", 0), ("time_limit", [1, 2]),
        ("time_limit", True), ("threads", 1.5), ("threads", 0), ("threads", None), ("mip_gap", "a"), ("mip_gap", 1),
        ("mip_gap_abs", None), ("mip_gap_abs", -1.0), ("stop_at", "a"), ("seed", -1), ("seed", 1.5), ("seed", None),
        ("attack_steps", 0), ("attack_steps", 1.5), ("attack_restarts", "3"), ("rigorous", "yes"), ("rigorous", 1),
    ],
)  # fmt: skip
def test_settings_of_the_wrong_type(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=name):
        Settings(**{name: value})  # type: ignore[arg-type]


def test_settings_of_numpy_become_pythons_own_and_others_stay() -> None:
    """Row keys are made of them as JSON: 5 and 5.0 differ there, and numpy's numbers are none."""
    found = Settings(time_limit=np.float32(3), threads=np.int64(2), seed=np.int32(3), rigorous=np.True_)  # type: ignore[arg-type]
    assert [type(value) for value in (found.time_limit, found.threads, found.seed, found.rigorous)] == [
        float, int, int, bool,
    ]  # fmt: skip
    assert type(Settings(time_limit=5).time_limit) is int
    for wrong in ("highs", {"solver": "highs"}, 3):
        for entry in (certify, margins, margin_problem):
            with pytest.raises(ValueError, match="settings must be a Settings"):
                entry(NETWORK, BALL, 0, settings=wrong)
        with pytest.raises(ValueError, match="settings must be a Settings"):
            layer_bounds(NETWORK, BALL, settings=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("rungs", ["dual", None, 3, [3], [None], [["dual"]], [], ["wrong"], {"dual": 1}])
def test_ladders_and_chains_that_are_no_list_of_rungs(rungs: Any) -> None:
    with pytest.raises(ValueError, match=r"ladder must|unknown rung 'wrong'"):
        certify(NETWORK, BALL, 0, ladder=rungs)
    with pytest.raises(ValueError, match=r"ladder must|unknown rung 'wrong'"):
        certified_radius(NETWORK, X, 0, ladder=rungs)
    with pytest.raises(ValueError, match=r"rungs must|unknown rung 'wrong'"):
        layer_bounds(NETWORK, BALL, rungs)
    with pytest.raises(ValueError, match=r"bounds must|unknown rung 'wrong'"):
        certify(NETWORK, BALL, 0, bounds=rungs)
    if not isinstance(rungs, str):
        with pytest.raises(ValueError, match="unknown rung"):
            margins(NETWORK, BALL, 0, rungs)


@pytest.mark.parametrize(
    "targets", [[], (), iter([]), [1, 1], [0], [3], [-1], "12", 3, [1.0], ["1"], [True], {}, [None], np.array([1.0])]
)
def test_targets_that_ask_for_nothing_or_twice_are_refused(targets: Any) -> None:
    with pytest.raises(ValueError, match=r"targets? must|entry of targets must"):
        margins(NETWORK, BALL, 0, "dual", targets=targets)


@pytest.mark.parametrize("targets", [{2, 1}, (t for t in (1, 2)), np.array([1, 2]), range(1, 3), (1, 2)])
def test_targets_in_any_collection(targets: Any) -> None:
    assert [bound.target for bound in margins(NETWORK, BALL, 0, "dual", targets=targets)] == [1, 2]


def test_targets_keep_their_order() -> None:
    assert class_targets([2, 1], 0, 3) == (2, 1)
    assert class_targets({2, 0}, 1, 3) == (0, 2)
    rows, chosen = margin_rows(3, np.int64(1), [2])  # type: ignore[arg-type]
    assert rows.tolist() == [[0.0, 1.0, -1.0]]
    assert chosen == (2,)


@pytest.mark.parametrize(
    "call",
    [
        lambda: certify(NETWORK, BALL, 0, time_limit="5"),  # type: ignore[arg-type]
        lambda: certify(NETWORK, BALL, 0, tolerance=None),  # type: ignore[arg-type]
        lambda: certified_radius(NETWORK, X, 0, largest="1"),  # type: ignore[arg-type]
        lambda: certified_radius(NETWORK, X, 0, known=None),  # type: ignore[arg-type]
        lambda: certified_radius(NETWORK, X, 0, known=(0.0,)),  # type: ignore[arg-type]
        lambda: Problem.of(NETWORK, BALL, np.eye(3), None),  # type: ignore[arg-type]
        lambda: Problem.of(NETWORK, X, np.eye(3), ReluBounds((), ())),  # type: ignore[arg-type]
        lambda: explain_equality(None),  # type: ignore[arg-type]
        lambda: check_proof("never.npz", Module()),  # type: ignore[arg-type]
        lambda: Network(Module()),  # type: ignore[arg-type]
        lambda: Network([Module()]),  # type: ignore[list-item]
        lambda: Network("net.npz"),  # type: ignore[arg-type]
        lambda: Network.load(3),  # type: ignore[arg-type]
        lambda: NETWORK.save(None),  # type: ignore[arg-type]
        lambda: NETWORK.cut("0"),  # type: ignore[arg-type]
        lambda: NETWORK.forward(None),
        lambda: NETWORK.forward("abc"),
        lambda: NETWORK.predict(1.0),
        lambda: Dense(Module()),
        lambda: gather(abs, [1, 2], 1.5, print),  # type: ignore[arg-type]
        lambda: gather(abs, [1, 2], 0, print),
        lambda: run_sweep(3, "out"),  # type: ignore[arg-type]
        lambda: run_sweep("spec.toml", None),  # type: ignore[arg-type]
        lambda: run_sweep("spec.toml", "out", workers=1.5),  # type: ignore[arg-type]
        lambda: run_sweep("spec.toml", "out", rerun=["failed"]),  # type: ignore[arg-type]
        lambda: run_sweep("spec.toml", "out", max_hours="1"),  # type: ignore[arg-type]
        lambda: run_sweep("spec.toml", "out", executor=3),  # type: ignore[arg-type]
        lambda: read_rows(None),  # type: ignore[arg-type]
    ],
)
def test_other_entries_refuse_what_they_cannot_use(call: Callable[[], object]) -> None:
    with pytest.raises(ValueError):
        call()


@pytest.mark.parametrize(
    "changes",
    [
        {"plan": 0.1}, {"plan": BatchPlan("0.1")}, {"plan": BatchPlan(-1.0)}, {"plan": BatchPlan(0.1, time_limit=0)},  # type: ignore[arg-type]
        {"plan": BatchPlan(0.1, tolerance=None)}, {"plan": BatchPlan(0.1, ladder="dual")},  # type: ignore[arg-type]
        {"plan": BatchPlan(0.1, bounds=("pgd",))}, {"plan": BatchPlan(0.1, domain=(0.9, 1.0))},
        {"plan": BatchPlan(0.1, settings="highs")}, {"samples": 3}, {"samples": [1.5]}, {"samples": [-1]},  # type: ignore[arg-type]
        {"samples": [500]}, {"data": "digits"}, {"workers": 0}, {"workers": "2"}, {"workers": True},
    ],
)  # fmt: skip
def test_a_batch_that_would_fail_for_every_sample_is_refused_before_any(changes: dict[str, Any]) -> None:
    given: dict[str, Any] = {"data": load_dataset("digits"), "samples": [0], "plan": BatchPlan(0.01), "workers": 1}
    asked: list[object] = []
    network = Network([Dense(np.ones((10, 64)))])
    with pytest.raises(ValueError):
        certify_samples(network, **(given | changes), progress=asked.append)
    assert asked == []


def test_numbers_of_torch_count() -> None:
    torch = pytest.importorskip("torch")
    assert whole_number("label", torch.tensor(2), 0, 2) == 2
    assert real_number("eps", torch.tensor(0.5)) == 0.5
    for wrong in (torch.tensor([1, 0]), torch.tensor(True), torch.tensor(1.0)):
        with pytest.raises(ValueError, match="label must be a whole number"):
            whole_number("label", wrong)
    with pytest.raises(ValueError, match=r"Network\.from_torch"):
        certify(torch.nn.Sequential(torch.nn.Linear(3, 3)), BALL, 0)
    with pytest.raises(ValueError, match=r"center\.detach\(\)"):
        LinfBall(torch.zeros(3, requires_grad=True), 0.1)
