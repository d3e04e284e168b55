"""The public names: what is handed in wrong is refused in a sentence, what comes back says in a line what it is."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import random_dense_network
from stored_rows import numbered

import toolkit
from toolkit.rungs import RUNGS

NET = random_dense_network(np.random.default_rng(0), (3, 4, 3), "net")
X = np.array([0.3, 0.4, 0.5])
LABEL = int(NET.predict(X))
BALL = toolkit.LinfBall(X, 0.05, (0, 1))
BOUNDS = toolkit.layer_bounds(NET, BALL)
ANSWER = toolkit.certify(NET, BALL, LABEL)
NOTHING = Path("nothing.npz")
ROWS = pd.DataFrame([asdict(row) for row in numbered(2)])
QUESTION = {"network": NET, "ball": BALL, "label": LABEL}
DISTANCE = {"network": NET, "center": X, "label": LABEL}
SIZED = {"center": X, "eps": 0.1, "domain": (0, 1)}
CALLS: dict[str, dict[str, Any]] = {
    "certify": QUESTION | {"ladder": ("dual",), "settings": None},
    "certified_radius": DISTANCE | {"ladder": ("dual",)},
    "closest": DISTANCE | {"rungs": ("pgd",), "progress": None},
    "margins": QUESTION | {"rung": "dual", "settings": None},
    "layer_bounds": {"network": NET, "ball": BALL, "rungs": ("interval",), "settings": None, "progress": None},
    "write_proof": {"path": NOTHING} | QUESTION | {"tighten": False},
    "check_proof": {"path": NOTHING, "network": NET},
    "float32_error": {"network": NET, "ball": BALL, "relu_bounds": None},
    "LinfBall": SIZED, "L1Ball": SIZED, "L2Ball": SIZED, "make_ball": {"norm": "linf"} | SIZED,
    "Box": {"lower": X - 0.1, "upper": X + 0.1},
    "Property": {"objective": toolkit.robustness(3, 0).objective, "groups": np.arange(2)},
    "robustness": {"outputs": 3, "label": 0},
    "Dense": {"weight": np.ones((2, 3)), "bias": None},
    "Conv2d": {"weight": np.ones((2, 1, 2, 2)), "bias": None, "shape": (1, 4, 4), "stride": 1},
    "Network": {"layers": [toolkit.Dense(np.ones((2, 3)))], "name": ""},
    "Network.load": {"source": NOTHING},
    "ReluBounds": {"lower": BOUNDS.lower, "upper": BOUNDS.upper},
    "Rung": {"name": "own", "side": RUNGS["lp"].side, "claim": "", "source": "", "run": RUNGS["lp"].run},
    "Settings": {"solver": "highs", "rigorous": True},
    "load_dataset": {"name": "digits", "split": "test"},
    "register_dataset": {"name": "own", "load": None},
    "load_image": {"path": NOTHING, "shape": (1, 8, 8)},
    "load_spec": {"path": NOTHING}, "read_rows": {"out": NOTHING}, "read_vnnlib": {"path": NOTHING},
    "verify_query": {"network": NET, "query": NOTHING, "ladder": ("dual",), "settings": None},
    "check_order": {"rows": ROWS, "tolerance": 1e-6},
    "gap_table": {"rows": ROWS}, "margin_table": {"rows": ROWS},
    "plot_margins": {"certification": ANSWER}, "plot_tightness": {"frame": ROWS, "networks": None},
    "plot_radii": {"frame": ROWS}, "write_report": {"rows": ROWS, "out_dir": NOTHING},
    "run_sweep": {"spec": NOTHING, "out": NOTHING},
}  # fmt: skip
RETURNED = ("Bound", "Certification", "Dataset", "InputSet", "QueryResult", "SweepSpec")
ENUMS = ("QueryStatus", "Status", "Verdict")
NO_ARGUMENTS = ("dataset_names", "Flatten")
TRIED_ELSEWHERE = ("smoothed_radius", "to_pyomo")  # by tests of their own


class Anything:
    """Neither a number nor a name, a list, a file, or what a caller could mean."""

    def __call__(self) -> None:
        """So that it is no function with arguments either."""


WRONG = (Anything(), float("nan"), {"a": 1}, b"bytes", -7.5)
WORD_OF = {"center": "center|coordinates", "network": "network|source"}


def named(name: str) -> Any:
    found: Any = toolkit
    for part in name.split("."):
        found = getattr(found, part)
    return found


def test_every_public_name_is_tried() -> None:
    called = {name.split(".")[0] for name in CALLS} | {*RETURNED, *ENUMS, *NO_ARGUMENTS, *TRIED_ELSEWHERE}
    assert called >= set(toolkit.PUBLIC)


@pytest.mark.parametrize(
    ("name", "argument"), [(name, argument) for name, given in CALLS.items() for argument in given]
)
def test_a_wrong_argument_is_named_in_a_sentence(name: str, argument: str, tmp_path: Path) -> None:
    text = name in ("Rung", "Network") and argument in ("claim", "source")
    for value in () if text else WRONG:
        if argument in ("progress", "run", "load") and callable(value):
            continue
        with pytest.raises(ValueError) as caught:
            named(name)(**CALLS[name] | {argument: value})
        said = str(caught.value)
        words = WORD_OF.get(argument, argument).split("|")
        assert any(word in said for word in words), said
        assert len(said.splitlines()) == 1


def test_what_was_meant_is_said() -> None:
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 3))
    for call in (
        lambda: toolkit.certify(module, BALL, LABEL),
        lambda: toolkit.layer_bounds(module, BALL),
        lambda: toolkit.Network.load(module),
        lambda: toolkit.float32_error(module, BALL),
        lambda: toolkit.verify_query(module, NOTHING),
    ):
        with pytest.raises(ValueError, match=r"Network\.from_torch\(module\)"):
            call()
    for label in (1.0, True, np.array([0.1, 0.9]), "1"):
        with pytest.raises(ValueError, match="label must be a whole number in 0 … 2, got"):
            toolkit.certify(NET, BALL, label)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"a ball around a point x is LinfBall\(x, eps\)"):
        toolkit.certify(NET, "ball", LABEL)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"fit the centre's shape \(3,\), got shape \(2,\)"):
        toolkit.LinfBall(X, np.array([0.1, 0.2]))
    with pytest.raises(ValueError, match="network must be a Network, got ndarray of shape"):
        toolkit.margins(np.ones((2, 2)), BALL, LABEL)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="center must have the network's 3 inputs, got 2"):
        toolkit.closest(NET, X[:2], LABEL)


def specimens() -> dict[str, object]:
    """One object of every public class that is made or returned."""
    digits = toolkit.load_dataset("digits")
    return {
        "Bound": ANSWER.margins[0], "Certification": ANSWER, "Dataset": digits, "ReluBounds": BOUNDS, "Network": NET,
        "LinfBall": BALL, "L1Ball": toolkit.L1Ball(X, 0.1), "L2Ball": toolkit.L2Ball(digits.images[0], 0.1, (0, 1)),
        "Box": toolkit.Box(X - 1, X + 1), "Dense": NET.maps[0], "Flatten": toolkit.Flatten(),
        "Conv2d": toolkit.Conv2d(np.ones((2, 1, 3, 3)), None, (1, 8, 8)), "Property": toolkit.robustness(3, 0),
        "Rung": RUNGS["lp"], "Settings": toolkit.Settings(),
        "Radius": toolkit.certified_radius(NET, X, LABEL, ladder=("dual",)),
        "SweepSpec": toolkit.load_spec(Path(__file__).parents[1] / "experiments" / "demo.toml"),
    }  # fmt: skip


def test_reprs_are_one_line_with_shapes_and_ranges() -> None:
    texts = {name: repr(one) for name, one in specimens().items()}
    for name, text in texts.items():
        assert text.startswith(f"{name}("), text
        assert len(text.splitlines()) == 1
        assert len(text) <= 250, text
        assert "array(" not in text
    assert "1×8×8" in texts["Dataset"]
    assert "0 … 1" in texts["L2Ball"]
    assert "1×8×8 → 2×6×6" in texts["Conv2d"]
    assert f"label {LABEL}" in texts["Certification"]
    assert "3-4-3" in texts["Network"]


def test_public_callables_have_types_and_a_docstring() -> None:
    for name in toolkit.PUBLIC:
        found: Callable[..., Any] = getattr(toolkit, name)
        assert inspect.getdoc(found), name
        if inspect.isfunction(found):
            assert all(one.annotation is not one.empty for one in inspect.signature(found).parameters.values()), name


def test_frames_read_like_frames() -> None:
    table = toolkit.gap_table(ROWS)
    assert isinstance(table, pd.DataFrame)
    assert type(table[table["eps"] > 0]) is pd.DataFrame
    assert "tightness" in table._repr_html_()  # type: ignore[operator]
    assert "gap_lp" in toolkit.margin_table(ROWS)._repr_html_()  # type: ignore[operator]
