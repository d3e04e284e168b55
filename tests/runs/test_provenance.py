"""provenance.json: one shape for sweeps, tables and experiments; files of earlier shapes are read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from toolkit.runs.provenance import begin_run, end_run, read_provenance, recorded_run

RESULTS = Path(__file__).parents[2] / "results"


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*/provenance.json")), ids=lambda path: path.parent.name)
def test_committed_provenance_of_every_shape_is_read(path: Path) -> None:
    runs = read_provenance(path.parent)
    assert runs
    for run in runs:
        of_a_figure = run["details"]["figures"]["margins"] if "relugap" not in run else run
        assert "commit" in of_a_figure["relugap"]


def test_a_file_of_one_run_is_one_run_with_its_own_values_as_details(tmp_path: Path) -> None:
    earlier = {"command": "python experiments/x.py", "relugap": {"version": "0"}, "rows": 7, "gap": 1e-4}
    (tmp_path / "provenance.json").write_text(json.dumps(earlier))
    (run,) = read_provenance(tmp_path)
    assert run == {"command": earlier["command"], "relugap": {"version": "0"}, "details": {"rows": 7, "gap": 1e-4}}
    assert begin_run(tmp_path, {}).startswith("r0002-")
    assert read_provenance(tmp_path)[0] == run


def test_runs_are_numbered_and_completed(tmp_path: Path) -> None:
    first, second = (begin_run(tmp_path, {"details": {"k": k}}) for k in range(2))
    assert (first[:6], second[:6]) == ("r0001-", "r0002-")
    end_run(tmp_path, first, "finished", {"rows": {"written": 3}})
    runs = read_provenance(tmp_path)
    assert [run["outcome"] for run in runs] == ["finished", "running"]
    assert runs[0]["rows"] == {"written": 3}
    assert runs[0]["packages"]["numpy"] == np.__version__
    begin_run(tmp_path, {}, keep_runs=False)
    assert len(read_provenance(tmp_path)) == 1


def test_a_recorded_run_keeps_what_is_added_and_names_its_end(tmp_path: Path) -> None:
    with recorded_run(tmp_path, {"details": {"a": 1}}) as run:
        assert read_provenance(tmp_path)[0]["outcome"] == "running"
        run["networks"] = {"n": "digest"}
    with pytest.raises(KeyboardInterrupt), recorded_run(tmp_path, {}):
        raise KeyboardInterrupt
    finished, ended = read_provenance(tmp_path)
    assert (finished["outcome"], finished["details"], finished["networks"]) == ("finished", {"a": 1}, {"n": "digest"})
    assert ended["outcome"] == "ended by KeyboardInterrupt"
    assert json.loads((tmp_path / "provenance.json").read_text())["format"] == 2
