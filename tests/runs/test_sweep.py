"""Sweeps: what they compute, how rows are identified, and what is said about where they come from."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import random_dense_network
from sweep_specimens import assert_same_table, make_spec, run, write_toml
from sweep_specimens import folder as folder

from toolkit.data.datasets import load_dataset
from toolkit.networks.network import Network
from toolkit.problems.input_sets import LinfBall
from toolkit.problems.settings import Settings
from toolkit.rungs import RUNGS
from toolkit.runs.provenance import read_provenance
from toolkit.runs.rows import ROW_COLUMNS, Row
from toolkit.runs.shards import append_rows
from toolkit.runs.store import read_rows
from toolkit.runs.sweep.plan import make_plan
from toolkit.runs.sweep.progress import read_snapshot
from toolkit.runs.sweep.run import run_sweep
from toolkit.runs.sweep.spec import SweepSpec
from toolkit.runs.sweep.tasks import Work, row_keys
from toolkit.verify.layer_bounds import layer_bounds
from toolkit.verify.margins import margins


@pytest.fixture
def spec(folder: Path) -> SweepSpec:
    """2 networks × 3 samples × (2 or 1) ε: 9 tasks of 9 targets each, all closed forms and solvers."""
    return make_spec(folder)


def test_rows_are_complete_and_equal_margins_computed_by_hand(spec: SweepSpec, tmp_path: Path) -> None:
    rows = run(spec, tmp_path)
    assert list(rows.columns) == list(ROW_COLUMNS)
    assert len(rows) == 9 * 9 * 4  # tasks × targets × rungs
    assert set(rows["status"]) <= {"computed", "optimal"}
    data = load_dataset("digits")
    for (source, sample, eps), part in rows.groupby(["network", "sample", "eps"]):
        network = Network.load(spec.networks[("deep", "flat").index(source)].source)
        label, center = int(data.labels[sample]), data.features[sample]
        ball = LinfBall(center, eps, (0, 1))
        bounds = layer_bounds(network, ball)
        logits = network.forward(center)
        for rung, own in part.groupby("rung"):
            assert own["target"].tolist() == [t for t in range(10) if t != label]
            expected = margins(network, ball, label, rung, bounds, settings=Settings(solver="highs"))
            np.testing.assert_allclose(own["lower"], [bound.lower for bound in expected], rtol=1e-9, atol=1e-9)
            np.testing.assert_allclose(own["clean_margin"], logits[label] - logits[own["target"]], atol=1e-12)
            counts = np.sum(bounds.counts(), axis=0)
            assert (own[["unstable", "active", "inactive"]] == counts).all(axis=None)
            assert set(own["network_digest"]) == {network.digest}
        assert part["layer_bounds"].unique().tolist() == ["interval+dual"]
        assert part["domain"].unique().tolist() == ["[0, 1]"]
    lower = rows.pivot(index=["network", "sample", "eps", "target"], columns="rung", values="lower")
    assert (lower["interval"] <= lower["exact"] + 1e-6).all()
    assert (lower["dual"] <= lower["lp"] + 1e-6).all()
    assert (lower["lp"] <= lower["exact"] + 1e-6).all()
    certified = rows[rows["rung"] == "lp"]
    assert (certified["certified_lower"] <= certified["lower"] + 1e-6).all()
    assert (certified["certified_lower"] > certified["lower"] - 1e-4).all()


def test_two_processes_give_the_serial_table_and_a_second_run_does_nothing(spec: SweepSpec, tmp_path: Path) -> None:
    serial = run(spec, tmp_path / "one")
    assert_same_table(run(spec, tmp_path / "two", workers=2), serial)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "two").rglob("*") if path.name != "plan.parquet"}
    assert_same_table(run(spec, tmp_path / "two", workers=2), serial)
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "two").rglob("*") if path.name != "plan.parquet"}
    assert {path for path in after if after[path] != before.get(path)} <= {tmp_path / "two" / ".lock"}
    assert len(read_provenance(tmp_path / "two")) == 1


def test_partial_results_cover_every_network_and_eps(folder: Path) -> None:
    """Sample by sample, and within a sample in turns over ε and networks; ε lists of different length."""
    plan = make_plan(make_spec(folder, samples=[4, 2]))
    tasks = plan.tasks(Work("", "", Settings(), None))
    assert [(task.sample, task.eps, task.network.name) for task in tasks] == [
        (sample, eps, name) for sample in (4, 2) for eps, name in ((0.01, "deep"), (0.02, "flat"), (0.03, "deep"))
    ]


@pytest.mark.parametrize(
    ("change", "rungs_kept"),
    [
        ({"eps": [0.011, 0.031]}, []),
        ({"domain": None}, []),
        ({"norm": "l2"}, []),
        ({"layer_bounds": (("interval",),)}, []),
        ({"time_limit": 50}, ["dual", "interval"]),
        ({"mip_gap": 1e-3}, ["dual", "interval"]),
        ({"mip_gap_abs": 1e-3}, ["dual", "interval"]),
        ({"rigorous": False}, ["dual", "interval"]),
        ({"solver": "auto"}, ["dual", "interval"]),
        ({"attack_steps": 7}, ["dual", "exact", "interval", "lp"]),
        ({"name": "another"}, ["dual", "exact", "interval", "lp"]),
    ],
)
def test_keys_change_with_what_determines_a_row(folder: Path, change: dict[str, Any], rungs_kept: list[str]) -> None:
    one = make_spec(folder, networks=[{"source": str(folder / "deep.npz"), "dataset": "digits"}])
    before, after = keys_by_rung(one), keys_by_rung(one.model_copy(update=change))
    assert [rung for rung in sorted(before) if before[rung] == after[rung]] == rungs_kept
    assert all(before[rung].isdisjoint(after[rung]) for rung in before if rung not in rungs_kept)


def test_keys_change_with_network_rung_version_and_chain_version(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = keys_by_rung(make_spec(folder, rungs=["interval", "dual"]))
    network = Network.load(folder / "deep.npz")
    for name in ("deep", "flat"):
        random_dense_network(np.random.default_rng(5), [64, *network.relu_sizes, 10], name).save(
            tmp_path / f"{name}.npz"
        )
    for rung, keys in keys_by_rung(make_spec(tmp_path, rungs=["interval", "dual"])).items():
        assert keys.isdisjoint(before[rung])
    monkeypatch.setitem(RUNGS, "interval", replace(RUNGS["interval"], version=99))
    for rung, keys in keys_by_rung(make_spec(folder, rungs=["interval", "dual"])).items():
        assert keys.isdisjoint(before[rung])  # of dual too: its layer bounds begin with interval
    only_dual = make_spec(folder, rungs=["dual"], layer_bounds=[["dual"]])
    monkeypatch.undo()
    assert keys_by_rung(only_dual) == keys_by_rung(make_spec(folder, rungs=["dual"], layer_bounds=[["dual"]]))


def keys_by_rung(spec: SweepSpec) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    work = Work("", "", spec.settings(), spec.domain, norm=spec.norm)
    for task in make_plan(spec).tasks(work):
        for (_, rung), keys in row_keys(task).items():
            found.setdefault(rung, set()).update(keys)
    return found


def test_a_changed_spec_computes_only_what_is_new(folder: Path, tmp_path: Path) -> None:
    first = run(make_spec(folder, rungs=["dual"]), tmp_path)
    more = run(make_spec(folder, rungs=["dual", "interval"], samples=4), tmp_path)
    old = more[more["key"].isin(first["key"])]
    assert set(old["run_id"]) == set(first["run_id"])
    assert len(more) == 12 * 9 * 2
    back = run(make_spec(folder, rungs=["dual"]), tmp_path)
    assert_same_table(back, first)
    assert len(read_rows(tmp_path, everything=True)) == len(more)
    assert len(read_provenance(tmp_path)) == 2


def test_torn_line_is_computed_again(folder: Path, tmp_path: Path) -> None:
    spec = make_spec(folder, rungs=["dual", "lp"])
    whole = run(spec, tmp_path / "whole")
    run(make_spec_part(spec, 2), tmp_path / "torn", max_hours=1)
    rows = read_rows(tmp_path / "torn", everything=True)
    (tmp_path / "torn" / "rows.parquet").unlink()
    shard = append_rows(tmp_path / "torn", "r0001-aaaaaa", [to_row(row) for row in rows.to_dict("records")])
    content = shard.read_bytes()
    shard.write_bytes(content[: int(len(content) * 0.6)])
    assert_same_table(run(spec, tmp_path / "torn"), whole)


def make_spec_part(spec: SweepSpec, samples: int) -> SweepSpec:
    return spec.model_copy(update={"samples": samples})


def to_row(record: dict[str, Any]) -> Row:
    return Row(**record)


# ---------------------------------------------------------------------------------------------- faults in rungs


# ---------------------------------------------------------------------------------------------- sharing, provenance


def test_cached_layer_bounds_are_used_by_a_rung_added_later(folder: Path, tmp_path: Path) -> None:
    cached = {"cache_bounds": True, "samples": 1}
    run(make_spec(folder, rungs=["dual"], **cached), tmp_path)
    files = sorted((tmp_path / "bounds").iterdir())
    assert len(files) == 3  # tasks × chains
    stamps = [file.stat().st_mtime_ns for file in files]
    rows = run(make_spec(folder, rungs=["dual", "lp"], **cached), tmp_path)
    assert [file.stat().st_mtime_ns for file in sorted((tmp_path / "bounds").iterdir())] == stamps
    assert rows.groupby(["network", "eps"])["bounds_seconds"].nunique().eq(1).all()
    assert_same_table(rows, run(make_spec(folder, rungs=["dual", "lp"], samples=1), tmp_path / "plain"))
    files[0].write_bytes(files[0].read_bytes()[:100])  # a torn file is computed again
    run(make_spec(folder, rungs=["dual"], **cached), tmp_path, rerun="all")
    assert files[0].stat().st_size > 100


def test_cached_layer_bounds_are_as_certified_as_they_were(folder: Path, tmp_path: Path) -> None:
    chains = {"layer_bounds": [["interval", "exact"], ["interval", "dual"]], "cache_bounds": True, "samples": 1}
    chains |= {"rigorous": False}  # then `exact` by HiGHS bounds layers by that solver's word
    run(make_spec(folder, rungs=["dual"], **chains), tmp_path)
    rows = run(make_spec(folder, rungs=["dual", "interval"], **chains), tmp_path)
    certified = np.isfinite(rows["certified_lower"])
    assert len(rows["run_id"].unique()) == 2
    assert (certified == (rows["layer_bounds"] == "interval+dual")).all()


def test_provenance_tells_what_matters_and_no_more(folder: Path, tmp_path: Path) -> None:
    path = write_toml(tmp_path / "spec.toml", folder, ["dual"], 1)
    rows = run(path, tmp_path / "out")
    text = (tmp_path / "out" / "provenance.json").read_text()
    (entry,) = json.loads(text)["runs"]
    assert set(rows["run_id"]) == {entry["run_id"]}
    assert entry["rows"] == {"planned": 54, "present": 0, "written": 54}
    assert entry["outcome"] == "finished"
    assert entry["started"] <= entry["ended"]
    assert entry["started"].endswith("+00:00")
    assert entry["spec"]["eps"] == [0.01, 0.02, 0.03]
    assert "samples = 1" in entry["spec_text"]
    assert entry["execution"] == {"executor": "serial", "workers": 1, "solver_threads": 1, "blas_threads": 1}
    assert {network["digest"] for network in entry["networks"]} == set(rows["network_digest"])
    assert entry["packages"]["numpy"] == np.__version__
    assert entry["solvers"]["highs"]["version"]
    assert str(folder) not in text
    assert str(Path.home()) not in text.replace(f'"{os.sep}"', "")
    assert platform.node() not in text


def test_progress_is_on_disk_for_other_terminals(spec: SweepSpec, tmp_path: Path, capsys: Any) -> None:
    run_sweep(spec.model_copy(update={"rungs": ("dual",)}), tmp_path, workers=1)
    snapshot = read_snapshot(tmp_path)
    assert snapshot is not None
    assert (snapshot.tasks, snapshot.done, snapshot.failed, snapshot.running, snapshot.rows) == (9, 9, 0, 0, 81)
    assert sum(snapshot.verdicts.values()) == 9
    assert snapshot.ended
    assert "test: 9/9 tasks" in capsys.readouterr().err
