"""Norms on the command line, in sweeps and in reports: what is asked is what is answered and shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolkit import Network, load_dataset, margins
from toolkit.cli import main
from toolkit.problems.input_sets import make_ball
from toolkit.report.order import check_order
from toolkit.runs.sweep.run import run_sweep
from toolkit.runs.sweep.spec import parse_spec
from toolkit.verify.layer_bounds import layer_bounds

NET = "zoo:digits-standard"


@pytest.mark.parametrize(("norm", "eps", "title"), [("l1", "0.3", "ℓ1"), ("l2", "0.1", "ℓ2"), ("linf", "0.02", "ℓ∞")])
def test_certify_and_check_take_a_norm(
    norm: str, eps: str, title: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    question = ["certify", NET, "--data", "digits", "--index", "3", "--eps", eps, "--norm", norm]
    main([*question, "--rungs", "dual,lp", "--proof", str(tmp_path / "p.npz")])
    assert f"ε = {eps} in {title}, domain [0, 1]" in capsys.readouterr().out
    main(["check", str(tmp_path / "p.npz"), "--network", NET, "--data", "digits", "--index", "3"])
    shown = capsys.readouterr().out
    assert "VERIFIED" in shown
    assert f"ε = {eps} in {title}" in shown


def test_many_images_in_a_norm(capsys: pytest.CaptureFixture[str]) -> None:
    main(["certify", NET, "--data", "digits", "--count", "3", "--eps", "0.1", "--norm", "l2", "--rungs", "dual,pgd"])
    assert "in ℓ2" in capsys.readouterr().out


def test_an_unknown_norm_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["certify", NET, "--data", "digits", "--index", "3", "--eps", "0.1", "--norm", "l3"]) == 2
    assert "--norm must be one of linf, l1, l2" in capsys.readouterr().err


def test_a_sweep_in_a_norm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = {
        "name": "norms",
        "samples": [3],
        "eps": [0.05],
        "norm": "l2",
        "domain": [0, 1],
        "rungs": ["dual", "lp", "exact", "pgd"],
        "networks": [{"source": NET, "dataset": "digits"}],
    }
    rows = run_sweep(parse_spec(content), tmp_path / "out")
    assert set(rows["norm"]) == {"l2"}
    check_order(rows)
    data, network = load_dataset("digits"), Network.load(NET)
    ball = make_ball("l2", data.features[3], 0.05, (0.0, 1.0))
    bounds = layer_bounds(network, ball, ("interval", "dual"))
    own = [bound.lower for bound in margins(network, ball, int(data.labels[3]), "dual", bounds)]
    assert rows[rows["rung"] == "dual"]["lower"].tolist() == own
    other = run_sweep(parse_spec(content | {"norm": "l1", "rungs": ["dual"]}), tmp_path / "other")
    assert set(other["norm"]) == {"l1"}
    assert set(other["key"]).isdisjoint(rows["key"])
    with pytest.raises(ValueError, match="norm must be one of linf, l1, l2"):
        parse_spec(content | {"norm": "box"})
