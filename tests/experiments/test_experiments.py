"""Every experiment is runnable: the ones without a test file of their own at smoke size, every TOML by its reader."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tomllib
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest

from toolkit import LinfBall, Network, load_dataset
from toolkit.rungs import RUNGS
from toolkit.runs.sweep.spec import load_spec
from toolkit.runs.tables import load_entry, read_catalogue

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
sys.path.insert(0, str(EXPERIMENTS))


@pytest.mark.parametrize("path", sorted(EXPERIMENTS.glob("*.toml")), ids=lambda path: path.stem)
def test_every_spec_is_valid(path: Path) -> None:
    """Sweep specs by the sweep's reader; training specs, which name losses, by the trainer's; tables by reproduce's."""
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    if path.stem == "mutants":
        from mutants import read_mutants

        assert read_mutants(path)
    elif path.stem == "catalogue":
        assert read_catalogue().experiments
    elif path.stem == "mutants":
        assert content["mutant"]  # tests/experiments/test_mutants.py holds them against the code
    elif "kind" in content:
        assert load_entry(path).rows
    elif any("loss" in network for network in content["networks"]) or "defaults" in content:
        from toolkit.training.spec import load_train_spec

        assert load_train_spec(path).networks
    elif path.stem.startswith("scaling-"):
        assert content["rungs"]  # its networks are made by scaling.py, whose own test runs it
    else:
        assert load_spec(path).networks


def test_performance_measures_at_smoke_size(tmp_path: Path) -> None:
    import performance

    given = ["--out", str(tmp_path)]
    lps = performance.main(["lps", *given, "--network", "zoo:digits-standard", "--data", "digits", "--repeats", "1"])
    assert lps["lps"] == 90
    assert lps["largest_difference"] < 1e-6
    assert lps["ratio"] > 0
    template = performance.measure_template(1, sizes=(20, 16, 16, 3), eps=0.05)
    assert template["seconds"] > 0
    assert template["unstable"] > 0
    arguments = [*given, "--network", "zoo:digits-standard", "--data", "digits", "--repeats", "1"]
    assert performance.main(["margins", *arguments])["seconds"] > 0
    assert performance.main(["memory", *arguments])["peak_megabytes"] > 50
    ladder = performance.main(["ladder", *arguments, "--count", "3", "--eps", "0.02"])
    assert sum(ladder[verdict] for verdict in ("YES", "NO", "MAYBE")) == 3
    assert performance.main(["bounds", *arguments])["unstable"] > 0
    assert performance.main(["alpha", *arguments, "--eps", "0.12"])["ratio"] > 0
    assert performance.main(["bab", *arguments, "--eps", "0.08", "--target", "1"])["nodes"] >= 1
    performance.large_conv_network(24, 4).save(tmp_path / "large.npz")
    assert performance.measure_large_conv(tmp_path / "large.npz")["certified"] > -np.inf


@pytest.mark.slow
def test_a_large_convolution_fits_into_a_gigabyte(tmp_path: Path) -> None:
    command = [sys.executable, "experiments/performance.py", "large-conv", "--out", str(tmp_path)]
    subprocess.run(command, cwd=EXPERIMENTS.parent, check=True, capture_output=True)
    assert pd.read_csv(tmp_path / "large-conv.csv")["peak_megabytes"][0] < 1000


def test_sweep_speed_measures_at_smoke_size(tmp_path: Path) -> None:
    import sweep_speed

    given = ["--out", str(tmp_path), "--tasks", "4", "--rows", "2000", "--seconds", "0.5"]
    with patch.dict(RUNGS):  # the measuring rungs are for this experiment alone
        found = {what: sweep_speed.main([what, *given]) for what in ("speedup", "overhead", "reading")}
    assert found["speedup"]["speed_up"] > 0
    assert found["overhead"]["rows"] == 36
    assert found["reading"]["from_parquet_seconds"] > 0
    assert {path.name for path in tmp_path.iterdir()} == {*(f"{what}.csv" for what in found), "provenance.json"}


def test_omlt_comparison_at_smoke_size(tmp_path: Path) -> None:
    import against_omlt

    pytest.importorskip("omlt", reason="the comparison runs in an environment with OMLT, which is not a dependency")
    found = against_omlt.main(["--out", str(tmp_path), "--eps", "0.01", "--target", "3"])
    assert found["template"]["lower"] == pytest.approx(found["omlt"]["lower"], abs=1e-2)


def test_bounds_beside_other_tools_at_smoke_size(tmp_path: Path) -> None:
    import beside

    if not any(importlib.util.find_spec(package) for package, _, _ in beside.TOOLS.values()):
        with pytest.raises(ValueError, match="pip install gurobi-machinelearning omlt"):
            beside.main(["--out", str(tmp_path), "--count", "1"])
        pytest.skip("neither gurobi-machinelearning nor OMLT is installed, and neither is a dependency")
    table = beside.main(["--out", str(tmp_path), "--count", "1", "--eps", "0.01"])
    assert (table["closed"] == table["margins"]).all()
    assert (table["apart"] < 1e-4).all()


def test_our_side_of_the_omlt_comparison() -> None:
    from against_omlt import our_margin

    network, data = Network.load("zoo:digits-standard"), load_dataset("digits")
    ball = LinfBall(data.images[0], 0.01, (0, 1))
    label = int(data.labels[0])
    found = our_margin(network, ball, label, (label + 1) % 10, limit=20.0)
    assert found["status"] == "optimal"
    assert found["lower"] <= found["upper"] + 1e-9


def test_l2_margins_at_smoke_size(tmp_path: Path) -> None:
    import l2_margins

    given = ["--out", str(tmp_path), "--network", "zoo:digits-standard", "--data", "digits", "--index", "3"]
    found = l2_margins.main([*given, "--eps", "0.1", "--time-limit", "10"])
    assert (found["dual"] <= found["alpha"] + 1e-9).all()
    assert (found["alpha"] <= found["lower"]).all()
    assert (found["lower"] <= found["upper"]).all()
    assert set(found["status"]) == {"optimal"}
    claims = pd.read_csv(tmp_path / "proofs.csv").set_index("target")["claim"]
    assert (claims[found["target"]].to_numpy() >= found["lower"].to_numpy() - 2e-3).all()
    assert (claims[found["target"]].to_numpy() <= found["upper"].to_numpy()).all()
