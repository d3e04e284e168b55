"""The command line as a user meets it: output, files, exit codes and one-line errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sweep_specimens import zoo_spec

from toolkit import Network, load_dataset
from toolkit.cli import main
from toolkit.cli.doctor import solver_fault, solvers_found
from toolkit.cli.errors import expected_message
from toolkit.problems.settings import Settings
from toolkit.runs.store import read_rows
from toolkit.solvers.highs import HighsSession
from toolkit.solvers.registry import SOLVERS
from toolkit.solvers.solve_report import SolveReport

COMMANDS = ("demo", "certify", "sweep", "report", "train", "doctor")
DIGIT = ["certify", "zoo:digits-standard", "--data", "digits", "--index", "3"]
SPEC = zoo_spec("tiny", samples=[3, 5], eps=[0.01, 0.05])


def run(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> str:
    """Standard output of a command that must end with `code`; an error must be one line."""
    assert main([str(argument) for argument in arguments]) == code
    found = capsys.readouterr()
    if code:
        assert found.out == ""
        assert found.err.count("\n") == 1
        assert found.err.startswith("error: ")
        return found.err
    return found.out


def table_row(output: str, first: str) -> list[str]:
    [cells] = [line.split() for line in output.splitlines() if line.split()[:1] == [first]]
    return cells


def margin_cells(output: str) -> dict[int, list[float]]:
    """target → the numbers beside it, in the table below the header that starts with "target"; no counts like 3/4."""
    below = output[output.index(" target ") :].splitlines()[1:]
    rows = [line.split() for line in below if line.split() and line.split()[0].isdigit()]
    return {int(target): [float(cell) for cell in cells if "/" not in cell] for target, *cells in rows}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    output = run(capsys, command, "--help")
    assert f"Example: relugap {command}" in output
    assert command in run(capsys, "--help")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--version").startswith("relugap 0.")


def test_certify_prints_ordered_margins_and_the_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    output = run(capsys, *DIGIT, "--eps", 0.05, "--rung", "exact", "--rung", "dual", "--rungs", "lp,interval")
    assert table_row(output, "target")[:6] == ["target", "clean", "interval", "dual", "lp", "exact"]
    data = load_dataset("digits")
    logits = Network.load("zoo:digits-standard").forward(data.features[3])
    label = int(data.labels[3])
    cells = margin_cells(output)
    assert set(cells) == set(range(10)) - {label}
    for target, (clean, interval, dual, relaxed, exact, *gaps) in cells.items():
        assert clean == pytest.approx(logits[label] - logits[target], abs=1e-4)
        assert interval <= dual + 1e-4 <= relaxed + 2e-4 <= exact + 3e-4 <= clean + 4e-4
        assert gaps == pytest.approx([exact - interval, exact - dual, exact - relaxed], abs=2e-4)
    assert output.splitlines()[-1].startswith("YES: ")


def test_certify_says_maybe_and_no(capsys: pytest.CaptureFixture[str]) -> None:
    assert "\nMAYBE: " in run(capsys, *DIGIT, "--eps", 0.3, "--rungs", "interval")
    refuted = run(capsys, *DIGIT, "--eps", 0.3, "--rungs", "lp")
    assert "\nNO: a point of the ball, found by lp" in refuted
    assert "\nNO: the centre itself" in run(capsys, *DIGIT, "--eps", 0, "--label", 0, "--rungs", "dual")


def test_certify_takes_one_target_and_an_image_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = load_dataset("digits")
    np.save(tmp_path / "own.npy", data.images[3])
    label = int(data.labels[3])
    target = (label + 1) % 10
    common = ("certify", "zoo:digits-standard", "--eps", 0.05, "--rungs", "dual", "--target", target)
    own = margin_cells(run(capsys, *common, "--image", tmp_path / "own.npy", "--label", label))
    same = margin_cells(run(capsys, *common, "--data", "digits", "--index", 3))
    assert list(own) == [target]
    assert own == same
    uncut = margin_cells(run(capsys, *common, "--data", "digits", "--index", 3, "--no-domain"))
    assert uncut[target][1] < same[target][1]


@pytest.fixture(scope="module")
def rows_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `sweep` left the rows of SPEC."""
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "tiny.toml").write_text(SPEC, encoding="utf-8")
    assert main(["sweep", str(folder / "tiny.toml"), "--out", str(folder / "rows"), "--workers", "1"]) == 0
    return folder / "rows"


def test_sweep_says_what_is_there_and_does_not_repeat_it(rows_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = read_rows(rows_folder)
    output = run(capsys, "sweep", rows_folder.parent / "tiny.toml", "--out", rows_folder)
    assert f"{2 * 2 * 3 * 9} rows in" in output.replace("\n", " ")
    pd.testing.assert_frame_equal(read_rows(rows_folder), before)


def test_report_of_a_sweep(rows_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "digits-standard" in run(capsys, "report", rows_folder, "--formats", "svg", "--out", tmp_path)
    table = pd.read_csv(tmp_path / "table.csv")
    assert list(table["rung"]) == ["dual", "lp", "exact"] * 2
    assert table["tightness_mean"].between(0, 1).all()
    assert "<svg" in (tmp_path / "tightness.svg").read_text(encoding="utf-8")


def test_demo_runs_its_spec_and_says_where_things_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "demo.toml").write_text(SPEC.replace("tiny", "demo"), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    output = run(capsys, "demo", "--workers", 1)
    written = {path.name for path in (tmp_path / "results" / "demo").iterdir()}
    assert {"table.csv", "table.md", "table.tex", "tightness.png", "certified.png", "provenance.json"} <= written
    assert "results/demo/tightness.png" in output.replace("\n", "")


def test_rows_that_contradict_each_other_are_refused(
    rows_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def lifted(folder: Path) -> pd.DataFrame:
        rows = read_rows(folder)
        return rows.assign(lower=rows["lower"].where(rows["rung"] != "dual", rows["lower"] + 100))

    monkeypatch.setattr("toolkit.cli.sweeps.read_rows", lifted)
    message = run(capsys, "report", rows_folder, "--out", tmp_path / "report", code=2)
    assert "break the order" in message
    assert "dual lower" in message
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([*DIGIT, "--eps", "-1"], "eps must be finite and ≥ 0, got -1"),
        ([*DIGIT, "--eps", "nan"], "eps must be finite"),
        ([*DIGIT, "--eps", "x"], "--eps"),
        ([*DIGIT], "--eps"),
        ([*DIGIT, "--eps", "0.1", "--rungs", "dual,wrong"], "unknown rung 'wrong'; allowed: interval"),
        ([*DIGIT, "--eps", "0.1", "--bounds", "wrong"], "unknown rung 'wrong'"),
        ([*DIGIT, "--eps", "0.1", "--solver", "wrong"], "unknown solver 'wrong'; allowed: auto"),
        ([*DIGIT, "--eps", "0.1", "--label", "10"], "label must be in 0 … 9, got 10"),
        ([*DIGIT, "--eps", "0.1", "--target", "10"], "target must be in 0 … 9"),
        ([*DIGIT, "--eps", "0.1", "--domain", "1"], "--domain must be LOW,HIGH"),
        ([*DIGIT, "--eps", "0.1", "--domain", "1,0"], "domain must have low < high"),
        ([*DIGIT, "--eps", "0.1", "--time-limit", "0"], "time_limit must be > 0"),
        ([*DIGIT, "--eps", "0.1", "--image", "a.png"], "give either --data"),
        (["certify", "zoo:digits-standard", "--eps", "0.1"], "give either --data"),
        (["certify", "zoo:digits-standard", "--eps", "0.1", "--data", "digits"], "--data needs --index"),
        (["certify", "zoo:digits-standard", "--eps", "0.1", "--image", "none.npy"], "--image needs --label"),
        ([*DIGIT[:2], "--eps", "0.1", "--image", "none.npy", "--label", "1"], "no image file at none.npy"),
        ([*DIGIT[:4], "--index", "500", "--eps", "0.1"], "--index must be in 0 … 499 for digits, got 500"),
        (
            [*DIGIT[:2], "--data", "mnist5k", "--index", "0", "--eps", "0.1"],
            "mnist5k has images of shape (1, 28, 28), the network takes",
        ),
        ([*DIGIT[:2], "--data", "cifar", "--index", "0", "--eps", "0.1"], "unknown data set 'cifar'; allowed: digits"),
        (["certify", "zoo:none", *DIGIT[2:], "--eps", "0.1"], "no zoo network 'none'; allowed"),
        (["certify", "none.npz", *DIGIT[2:], "--eps", "0.1"], "no network file at none.npz"),
        (["sweep", "none.toml"], "no spec file at none.toml"),
        (["report", "none"], "no results folder at none"),
        (["train", "none.toml", "--out", "x"], "none.toml"),
        (["wrong"], "No such command 'wrong'"),
        (["sweep", "a.toml", "--wrong"], "--wrong"),
    ],
)
def test_errors_are_one_line_that_names_the_offender(
    arguments: Sequence[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert told in run(capsys, *arguments, code=2)


def test_corrupt_files_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 not a network")
    assert "bad.npz" in run(capsys, "certify", tmp_path / "bad.npz", *DIGIT[2:], "--eps", 0.1, code=2)
    (tmp_path / "bad.toml").write_text("name = ", encoding="utf-8")
    assert "bad.toml is not valid TOML" in run(capsys, "sweep", tmp_path / "bad.toml", code=2)
    (tmp_path / "key.toml").write_text(SPEC + "\nepss = 1\n", encoding="utf-8")
    assert "epss" in run(capsys, "sweep", tmp_path / "key.toml", code=2)


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(FileNotFoundError):
        main(["sweep", "none.toml", "--debug"])
    with pytest.raises(FileNotFoundError):
        main(["--debug", "sweep", "none.toml"])


def test_a_bug_is_not_dressed_up_as_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise TypeError("a bug")

    monkeypatch.setattr("toolkit.cli.sweeps.run_report", broken)
    with pytest.raises(TypeError, match="a bug"):
        main(["report", "folder"])
    assert expected_message(ModuleNotFoundError("No module named 'toolkit.x'", name="toolkit.x")) is None
    missing = expected_message(ModuleNotFoundError("No module named 'torch'", name="torch"))
    assert missing == 'torch is not installed: pip install "relugap[train]"'


def test_an_interrupt_is_told_and_ends_with_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt("stopped; 7 rows are new")

    monkeypatch.setattr("toolkit.cli.sweeps.run_spec", interrupted)
    assert main(["sweep", "a.toml"]) == 130
    assert capsys.readouterr().err == "stopped; 7 rows are new\n"


def test_doctor_finds_a_working_solver_and_the_packaged_data(capsys: pytest.CaptureFixture[str]) -> None:
    output = run(capsys, "doctor")
    assert table_row(output, "highs")[-1] == "passed"
    assert ["digits", "test", "yes"] in [line.split()[:3] for line in output.splitlines()]
    assert {solver.name for solver in solvers_found()} == set(SOLVERS)


def test_doctor_catches_a_solver_that_claims_too_much(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Optimist(HighsSession):
        def _solve(self, cost: np.ndarray, offset: float, settings: Settings) -> SolveReport:
            report = super()._solve(cost, offset, settings)
            return replace(report, bound=report.bound + 0.1) if self.model.is_mip else report

    monkeypatch.setitem(SOLVERS, "highs", replace(SOLVERS["highs"], session=Optimist))
    assert "lower -0.3, upper -0.5" in solver_fault(SOLVERS["highs"])


def test_doctor_fails_without_any_solver(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("toolkit.cli.doctor.solver_fault", lambda solver: "wrong")
    assert main(["doctor"]) == 1


def test_results_commands_on_a_rows_folder_folder(
    rows_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rows_folder.name in run(capsys, "results", "ls", rows_folder.parent)
    shown = run(capsys, "results", "show", rows_folder)
    assert "dual" in shown
    assert "seconds per rung" in shown
    assert "whole" in run(capsys, "results", "verify", rows_folder)
    run(capsys, "results", "export", rows_folder, tmp_path / "rows.csv")
    assert len(pd.read_csv(tmp_path / "rows.csv")) == len(read_rows(rows_folder))
    assert f"{len(read_rows(rows_folder))} rows" in run(capsys, "results", "compact", rows_folder)
    run(capsys, "results", "watch", rows_folder)
    assert "no results folders" in run(capsys, "results", "ls", tmp_path)
    assert "error: " in run(capsys, "results", "show", tmp_path / "nothing", code=2)
