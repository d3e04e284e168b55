"""Reproductions: the numbers are those of certify, image by image; stopped ones go on; entries are checked."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import beta

from toolkit.cli import main
from toolkit.cli.reproduce import reproduce, reproduce_table
from toolkit.data.datasets import DATASETS, load_dataset
from toolkit.networks.network import Network
from toolkit.networks.published import PUBLISHED
from toolkit.problems.input_sets import LinfBall
from toolkit.problems.settings import Settings
from toolkit.report.paper_tables import error_texts, radius_texts
from toolkit.runs.provenance import read_provenance
from toolkit.runs.rows import VERDICT_ROWS
from toolkit.runs.shards import shard_paths
from toolkit.runs.store import read_rows
from toolkit.runs.tables import errors, load_entry, read_catalogue
from toolkit.runs.tables.compare import errors_table, radii_table
from toolkit.runs.tables.entries import ErrorsEntry, RadiiEntry
from toolkit.runs.tables.errors import run_errors
from toolkit.runs.tables.radii import run_radii
from toolkit.verify.ladder import certify
from toolkit.verify.layer_bounds import layer_bounds
from toolkit.verify.margins import margins

ROOT = Path(__file__).parents[2]
ERRORS = """
kind = "errors"
title = "Errors of a zoo network"
source = "nobody 2000, Table 0"

[[stages]]
name = "dual"
bounds = ["dual"]
ladder = ["dual"]
[[stages]]
name = "FGSM"
ladder = ["fgsm"]
[[stages]]
name = "PGD"
ladder = ["pgd"]
[[stages]]
name = "LP"
bounds = ["dual"]
ladder = ["lp"]
[[stages]]
name = "exact"
bounds = ["interval", "dual", "lp"]
ladder = ["bab"]

[[rows]]
name = "digits"
network = "zoo:digits-standard"
dataset = "digits"
eps = 0.05
domain = [0, 1]
published = { clean = 1.0, dual = 50, exact = [20, 30] }
"""
RADII = """
kind = "radii"
title = "Radii of a zoo network"
source = "nobody 2000, Table 1"

[[methods]]
name = "PGD"
ladder = ["pgd"]
tolerance = 4e-3
[[methods]]
name = "WK"
bounds = ["dual"]
ladder = ["dual"]
tolerance = 4e-3
[[methods]]
name = "LP"
bounds = ["dual"]
ladder = ["lp"]
tolerance = 4e-3
[[methods]]
name = "exact"
ladder = ["dual", "pgd", "bab"]
tolerance = 4e-3

[[rows]]
name = "digits"
network = "zoo:digits-standard"
dataset = "digits"
samples = [0, 3]
largest = 0.1
domain = [0, 1]
published = { WK = 40.0 }
"""
COUNT = 8
RUN = "r0001-aaaaaa"


def silent(*_: object) -> None:
    """No progress."""


def written(folder: Path, text: str) -> Path:
    file = folder / "entry.toml"
    file.write_text(text, encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[errors.ErrorCell], pd.DataFrame]:
    folder = tmp_path_factory.mktemp("errors")
    entry = load_entry(written(folder, ERRORS))
    assert isinstance(entry, ErrorsEntry)
    return folder, *run_errors(entry, folder, RUN, COUNT, 1, silent)


def test_columns_are_what_each_bound_alone_says(measured: tuple) -> None:
    """Stages skip decided images; the columns are still those of every bound asked about every image."""
    _, cells, _ = measured
    found = {cell.column: cell.error for cell in cells}
    network, data = Network.load("zoo:digits-standard"), load_dataset("digits")
    wrong = network.predict(data.features[:COUNT]) != data.labels[:COUNT]
    failing: dict[str, list[bool]] = {"dual": [], "LP": [], "exact": [], "PGD": []}
    for i in range(COUNT):
        ball, label = LinfBall(data.features[i], 0.05, (0.0, 1.0)), int(data.labels[i])
        bounds = layer_bounds(network, ball, ("dual",))
        for column, rung in (("dual", "dual"), ("LP", "lp")):
            failing[column].append(not all(b.certified_lower > 0 for b in margins(network, ball, label, rung, bounds)))
        failing["exact"].append(certify(network, ball, label, ("pgd", "bab")).verdict != "YES")
        attacked = certify(network, ball, label, ("fgsm", "pgd")).verdict == "NO"
        failing["PGD"].append(attacked)
    for column, shares in failing.items():
        assert found[column] == pytest.approx(100 * np.mean(np.array(shares) | wrong)), column
    assert found["clean"] == pytest.approx(100 * np.mean(wrong))
    assert found["clean"] <= found["FGSM"] <= found["PGD"] <= found["exact"] <= found["LP"] <= found["dual"]


def test_the_last_stage_leaves_nothing_open(measured: tuple) -> None:
    last = measured[1][-1]
    assert last.maybe == 0
    assert last.attacked == last.error
    assert last.yes + last.no == last.asked


def test_every_image_is_asked_until_it_is_decided(measured: tuple) -> None:
    _, cells, images = measured
    for (_, sample), asked in images.groupby(["row", "sample"]):
        verdicts = asked["verdict"].tolist()
        assert "MAYBE" not in verdicts[-1:], sample
        assert set(verdicts[:-1]) <= {"MAYBE"}, sample
    assert images["sample"].nunique() + round(cells[0].error / 100 * COUNT) == COUNT


def test_a_stopped_run_goes_on_and_a_changed_question_starts_afresh(
    measured: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, cells, _ = measured
    (tmp_path / "answers" / "shards").mkdir(parents=True)
    (shard,) = shard_paths(folder / "answers")
    lines = shard.read_text().splitlines(keepends=True)
    assert len(read_rows(folder / "answers", everything=True, schema=VERDICT_ROWS)) == len(lines)
    kept = [*lines[:-2], lines[-2][:9]]  # killed while it wrote
    (tmp_path / "answers" / "shards" / shard.name).write_text("".join(kept))
    asked: list[int] = []
    real = errors.certify_samples

    def counting(network, data, samples, *rest):  # type: ignore[no-untyped-def]
        asked.extend(samples)
        return real(network, data, samples, *rest)

    monkeypatch.setattr(errors, "certify_samples", counting)
    entry = load_entry(written(tmp_path, ERRORS))
    assert isinstance(entry, ErrorsEntry)
    again, _ = run_errors(entry, tmp_path, RUN, COUNT, 1, silent)
    assert len(asked) == 2
    assert [(cell.column, cell.error) for cell in again] == [(cell.column, cell.error) for cell in cells]
    asked.clear()
    changed = load_entry(written(tmp_path, ERRORS.replace("eps = 0.05", "eps = 0.01")))
    assert isinstance(changed, ErrorsEntry)
    run_errors(changed, tmp_path, RUN, 3, 1, silent)
    assert asked


def test_two_processes_give_the_same_table(measured: tuple, tmp_path: Path) -> None:
    entry = load_entry(written(tmp_path, ERRORS))
    assert isinstance(entry, ErrorsEntry)
    cells, _ = run_errors(entry, tmp_path, RUN, COUNT, 2, silent)
    assert [(cell.column, cell.error) for cell in cells] == [(cell.column, cell.error) for cell in measured[1]]


def test_the_table_compares_with_the_published(measured: tuple) -> None:
    table = errors_table(measured[1], full={"digits": 500}).set_index("column")
    assert table.loc["dual", "difference"] == pytest.approx(table.loc["dual", "error"] - 50)
    exact = table.loc["exact"]
    assert exact["difference"] == pytest.approx(max(exact["error"] - 30, 0) + min(exact["error"] - 20, 0))
    count = round(exact["error"] / 100 * COUNT)
    assert exact["ci_low"] == pytest.approx(100 * beta.ppf(0.025, count, COUNT - count + 1) if count else 0)
    assert exact["ci_high"] == pytest.approx(100 * beta.ppf(0.975, count + 1, COUNT - count))
    assert errors_table(measured[1], full={"digits": COUNT})["ci_low"].isna().all()
    text = error_texts(errors_table(measured[1], full={"digits": COUNT}))[1]
    assert text == f"{measured[1][1].error:.2f} (50.00)"


def test_every_row_is_measured_against_its_own_test_set(measured: tuple) -> None:
    """Two rows of as many images, all of one's test set and a part of the other's: only the latter has an interval."""
    other = [replace(cell, row="other") for cell in measured[1]]
    table = errors_table([*measured[1], *other], full={"digits": COUNT, "other": 500}).set_index("row")
    assert table.loc["digits", "ci_low"].isna().all()
    assert table.loc["other", "ci_low"].notna().all()


def test_an_entry_writes_table_images_and_provenance(tmp_path: Path) -> None:
    file = written(tmp_path, ERRORS)
    for count in (2, 3):
        entry, run = reproduce_table(file, tmp_path / "out", count, 1, False, silent)
    assert (run.table["images"] == 3).all()
    assert f"# {entry.title}" in (tmp_path / "out" / "table.md").read_text()
    images = pd.read_parquet(tmp_path / "out" / "images.parquet")
    assert set(images["sample"]) <= {0, 1, 2}
    runs = read_provenance(tmp_path / "out")
    assert [run["details"]["count"] for run in runs] == [2, 3]
    assert [run["outcome"] for run in runs] == ["finished", "finished"]
    rows = read_rows(tmp_path / "out" / "answers", everything=True, schema=VERDICT_ROWS)
    assert set(rows["run_id"]) <= {run["run_id"] for run in runs}
    assert runs[0]["networks"]["digits"] == Network.load("zoo:digits-standard").digest
    (tmp_path / "out" / "answers" / "x.csv").write_text("")
    reproduce_table(file, tmp_path / "out", 1, 1, True, silent)
    assert not (tmp_path / "out" / "answers" / "x.csv").exists()
    assert len(read_provenance(tmp_path / "out")) == 1


def test_radii_are_ordered_and_bracket_the_exact_one(tmp_path: Path) -> None:
    entry = load_entry(written(tmp_path, RADII))
    assert isinstance(entry, RadiiEntry)
    cells, images = run_radii(entry, tmp_path, RUN, None, 1, silent)
    radii = images.pivot(index="sample", columns="column", values="certified")
    refuted = images.pivot(index="sample", columns="column", values="refuted")
    assert (radii["WK"] <= radii["LP"]).all()
    assert (radii["LP"] <= radii["exact"] + 1e-9).all()
    assert (radii["exact"] <= refuted["exact"]).all()
    assert (refuted["exact"] <= refuted["PGD"]).all()
    known = (refuted["exact"] - radii["exact"] <= 4e-3) | (radii["exact"] == 0.1)  # or beyond `largest`
    assert known.all()
    assert np.isfinite(refuted["exact"]).any()
    assert (radii["PGD"] == 0).all()
    table = radii_table(cells).set_index("column")
    assert table.loc["PGD", "value"] == pytest.approx(1e3 * refuted["PGD"].mean(), rel=1e-6)  # ∞ if one is
    assert table.loc["WK", "difference"] == pytest.approx(1e3 * radii["WK"].mean() - 40.0, rel=1e-6)
    texts = dict(zip(table.index, radius_texts(radii_table(cells)), strict=True))
    assert "…" not in texts["WK"]  # PGD's witnesses are PGD's
    assert ("…" in texts["exact"]) == (table.loc["exact", "refuted"] < table.loc["LP", "refuted"])
    network, data = Network.load("zoo:digits-standard"), load_dataset("digits")
    for sample, low in radii["exact"].items():
        ball = LinfBall(data.features[sample], float(low), (0.0, 1.0))
        assert certify(network, ball, int(data.labels[sample]), settings=Settings(solver="highs")).verdict == "YES"
    again, _ = run_radii(entry, tmp_path, RUN, None, 1, silent)
    assert [cell.seconds for cell in again] == [cell.seconds for cell in cells]  # read, not measured again


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('kind = "errors"', 'kind = "error"', "kind must be errors or radii, got 'error'"),
        ('ladder = ["dual"]', 'ladder = ["duel"]', "unknown rung 'duel'"),
        ("dual = 50", "duel = 50", "row 'digits': published names no column 'duel'; allowed: clean, dual"),
        ('name = "FGSM"', 'name = "dual"', "stage names must differ, got 'dual' twice"),
        (
            'name = "FGSM"',
            'name = "FGSM"\nattack_steps = 3000000000',
            "attack_steps must be in 1 … 1000000000, got 3000000000",
        ),
        ('name = "FGSM"', 'name = "clean"', "a stage cannot be called 'clean'"),
        ('dataset = "digits"', 'dataset = "digit"', "unknown data set 'digit'; allowed: digits"),
        ("eps = 0.05", "eps = -1", "rows[0].eps"),
        ("eps = 0.05", 'eps = 0.05\nnorm = "l9"', "norm must be one of linf, l1, l2, got 'l9'"),
        (
            'network = "zoo:digits-standard"',
            'network = "zoo:digit"',
            "unknown zoo network 'zoo:digit'; allowed: zoo:digits-",
        ),
        ('network = "zoo:digits-standard"', 'network = "published:x"', "unknown published network 'published:x'"),
        ("domain = [0, 1]", "domain = [1, 0]", "domain must be [low, high] with low < high, got [1.0, 0.0]"),
        ("title =", "titel =", "unknown key 'titel'; allowed: "),
        ("[[rows]]", "[[rows", "is not valid TOML"),
    ],
)
def test_a_bad_entry_is_refused_by_name(tmp_path: Path, old: str, new: str, message: str) -> None:
    file = written(tmp_path, ERRORS.replace(old, new, 1))
    with pytest.raises(ValueError) as caught:
        load_entry(file)
    assert str(file) in str(caught.value)
    assert message in str(caught.value)


def test_every_entry_of_the_catalogue_loads_and_every_script_takes_out() -> None:
    catalogue = read_catalogue()
    names = set()
    for experiment in catalogue.experiments.values():
        file = catalogue.folder / experiment.file
        if file.suffix == ".py":
            text = file.read_text(encoding="utf-8")
            assert f'experiment_parser(__doc__, "{experiment.name}")' in text, file.name
            assert "sys.exit(end_experiment(" in text, file.name
            assert experiment.count is None or f'"{experiment.count}"' in text, file.name
            assert experiment.workers == ('"--workers"' in text), file.name
        elif "kind = " in file.read_text(encoding="utf-8"):
            for row in load_entry(file).rows:
                assert row.network.startswith("zoo:") or row.network.removeprefix("published:") in PUBLISHED, row.name
            names.add(experiment.name)
    assert {"wong-kolter-2018-table1", "salman-2019-table1", "salman-2019-table2"} <= names
    scripts = {f.name for f in (ROOT / "experiments").glob("*.py") if "end_experiment" in f.read_text(encoding="utf-8")}
    assert scripts == {one.file for one in catalogue.experiments.values() if one.file.endswith(".py")}
    entries = {f.stem for f in (ROOT / "experiments").glob("*.toml") if "\nkind = " in f.read_text(encoding="utf-8")}
    assert entries == names


@pytest.mark.parametrize(
    "name", ["wong-kolter-2018-table1", "salman-2019-table1", "salman-2019-table2", "tjeng-2019-table1"]
)
def test_paper_tables_at_smoke_size(name: str, data_dir: Path, tmp_path: Path) -> None:
    """The rows whose weights and images are here, one image each; ours stay on their side of the published order."""
    entry = load_entry(ROOT / "experiments" / f"{name}.toml")
    files = {row.name: PUBLISHED[row.network.removeprefix("published:")].files for row in entry.rows}
    here = [row for row in entry.rows if all((data_dir / file.path).is_file() for file in files[row.name])]
    here = [row for row in here if row.dataset == "mnist"]
    if not here:
        pytest.skip(f"needs the networks of {name} in RELUGAP_DATA, such as {next(iter(files.values()))[0].path}")
    smaller = entry.model_copy(update={"rows": tuple(here)})
    if isinstance(smaller, ErrorsEntry):
        only = [row.model_copy(update={"time_limit": {s.name: 1.0 for s in entry.stages}}) for row in here]
        cells, _ = run_errors(smaller.model_copy(update={"rows": tuple(only)}), tmp_path, RUN, 1, 1, silent)
        for row in only:
            found = {cell.column: cell.error for cell in cells if cell.row == row.name}
            bounds = [found[stage.name] for stage in entry.stages_of(row) if stage.certifies]
            assert all(found["PGD"] <= bound for bound in bounds)
            assert bounds == sorted(bounds, reverse=True)
    else:
        quick = tuple(row.model_copy(update={"methods": ("PGD", "WK"), "samples": (124,)}) for row in here)
        radii, _ = run_radii(smaller.model_copy(update={"rows": quick}), tmp_path, RUN, 1, 1, silent)
        assert radii[1].value <= radii[0].value


@pytest.mark.parametrize("row", ["MNIST CNN-A-Adv, ε .3", "ERAN 6x100, ε .026", "ERAN ConvSmall, ε .12"])
def test_past_the_barrier_at_smoke_size(row: str, data_dir: Path, tmp_path: Path) -> None:
    """One image: the columns are in the order of the relaxations."""
    entry = load_entry(ROOT / "experiments" / "past-the-barrier.toml")
    assert isinstance(entry, ErrorsEntry)
    (asked,) = [one for one in entry.rows if one.name == row]
    file = PUBLISHED[asked.network.removeprefix("published:")].files[0]
    if not (data_dir / file.path).is_file() or not DATASETS[asked.dataset].found("test")[0]:
        pytest.skip(f"needs {file.path} and {asked.dataset} in RELUGAP_DATA")
    quick = asked.model_copy(update={"time_limit": {stage.name: 1.0 for stage in entry.stages}})
    cells, _ = run_errors(entry.model_copy(update={"rows": (quick,)}), tmp_path, RUN, 1, 1, silent)
    found = {cell.column: cell.error for cell in cells}
    bounds = [found[stage.name] for stage in entry.stages_of(quick) if stage.certifies]
    assert bounds == sorted(bounds, reverse=True)
    assert found["clean"] <= found["PGD"] <= found["exact"]


def test_the_command_lists_runs_and_refuses(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["reproduce"]) == 0
    assert "salman-2019-table2" in capsys.readouterr().out
    assert main(["reproduce", "no-such"]) == 2
    assert "unknown experiment 'no-such'; allowed: all, wong-kolter-2018-table1" in capsys.readouterr().err
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "mine.toml").write_text(ERRORS, encoding="utf-8")
    (tmp_path / "experiments" / "broken.py").write_text("import sys\nsys.exit(3)\n", encoding="utf-8")
    (tmp_path / "experiments" / "catalogue.toml").write_text(
        '[[experiments]]\nname = "mine"\nfile = "mine.toml"\nshows = "errors"\nminutes = 1\n'
        '[[experiments]]\nname = "broken"\nfile = "broken.py"\nshows = "nothing"\nminutes = 1\n',
        encoding="utf-8",
    )
    monkeypatch.chdir(tmp_path)
    assert main(["reproduce", "mine", "--count", "2", "--workers", "1"]) == 0
    assert "digits · exact: " in capsys.readouterr().err
    assert (tmp_path / "results" / "mine-2" / "table.csv").is_file()
    assert main(["reproduce", "all", "--count", "2", "--workers", "1"]) == 0  # leaves out what has one size only
    assert "broken: has one size only" in capsys.readouterr().out
    assert main(["reproduce", "broken"]) == 2
    assert "broken.py ended with exit code 3" in capsys.readouterr().err
    assert main(["reproduce", "broken", "--count", "2"]) == 2
    assert "broken has one size only" in capsys.readouterr().err
    assert main(["reproduce", "all", "--out", "x"]) == 2


def test_sweeps_and_scripts_are_experiments_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "experiments"
    folder.mkdir()
    (folder / "small.toml").write_text(
        'name = "small"\nsamples = 3\neps = [0.02]\nrungs = ["dual", "lp"]\n'
        '[[networks]]\nsource = "zoo:digits-standard"\ndataset = "digits"\n',
        encoding="utf-8",
    )
    (folder / "script.py").write_text(
        "import pathlib, sys\nout = pathlib.Path(sys.argv[sys.argv.index('--out') + 1])\n"
        "out.mkdir(parents=True)\n(out / 'said').write_text(' '.join(sys.argv[3:]))\n",
        encoding="utf-8",
    )
    (folder / "catalogue.toml").write_text(
        '[[experiments]]\nname = "small"\nfile = "small.toml"\nshows = "a sweep"\nminutes = 1\n'
        '[[experiments]]\nname = "script"\nfile = "script.py"\nshows = "a script"\nminutes = 1\ncount = "--points"\n'
        'arguments = ["--fast"]\n',
        encoding="utf-8",
    )
    monkeypatch.chdir(tmp_path)
    catalogue = read_catalogue()
    reproduce(catalogue, catalogue["small"], tmp_path / "a", count=1)
    assert pd.read_csv(tmp_path / "a" / "margins.csv")["sample"].nunique() == 1
    reproduce(catalogue, catalogue["script"], tmp_path / "b", count=7)
    assert (tmp_path / "b" / "said").read_text() == "--fast --points 7"


def test_the_catalogue_is_found_from_anywhere(tmp_path: Path) -> None:
    code = "from toolkit.runs.tables import read_catalogue; print(len(read_catalogue().experiments))"
    found = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert int(found.stdout) >= 3


TWO_ROWS = ERRORS + ERRORS[ERRORS.index("[[rows]]") :].replace('name = "digits"', 'name = "again"').replace(
    "0.05", "0.02"
)


def test_a_stopped_table_leaves_its_finished_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, out = written(tmp_path, TWO_ROWS), tmp_path / "out"
    real = errors.certify_samples

    def stopped(network, data, samples, plan, *rest):  # type: ignore[no-untyped-def]
        if plan.eps == 0.02:
            raise KeyboardInterrupt
        return real(network, data, samples, plan, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(errors, "certify_samples", stopped)
        with pytest.raises(KeyboardInterrupt):
            reproduce_table(file, out, 2, 1, False, silent)
    so_far = pd.read_csv(out / "table_so_far.csv")
    assert set(so_far["row"]) == {"digits"}
    assert "Unfinished: 1 of 2 rows; again left. The same command continues." in (out / "table_so_far.md").read_text()
    assert not (out / "table.csv").exists()
    _, run = reproduce_table(file, out, 2, 1, False, silent)
    assert not list(out.glob("table_so_far*"))
    whole = pd.read_csv(out / "table.csv")
    assert list(whole["row"].unique()) == ["digits", "again"]
    pd.testing.assert_frame_equal(whole[whole["row"] == "digits"][so_far.columns], so_far)
    assert set(run.networks) == {"digits", "again"}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("zoo:digits-standard", "gone.npz", r"files are missing for again: no network file at .*gone\.npz"),
        (
            '"digits"\neps = 0.02',
            '"mnist5k"\neps = 0.02',
            r"again: mnist5k has images of shape \(1, 28, 28\), the network takes \(1, 8, 8\)",
        ),
    ],
)
def test_nothing_begins_before_every_row_has_its_files(
    old: str, new: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, after = TWO_ROWS.split('name = "again"')
    file = written(tmp_path, f'{before}name = "again"{after.replace(old, new)}')
    monkeypatch.setattr(errors, "certify_samples", lambda *_: pytest.fail("work was begun"))
    with pytest.raises((ValueError, FileNotFoundError), match=f"nothing was begun.*{message}"):
        reproduce_table(file, tmp_path / "out", 2, 1, False, silent)
    assert not (tmp_path / "out").exists()


def test_weights_that_cannot_be_fetched_are_named_with_all_their_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RELUGAP_DATA", str(tmp_path / "none"))
    tried: list[str] = []

    def unreachable(_: object, name: str) -> str:
        tried.append(name)
        raise OSError("no network")

    monkeypatch.setattr("pooch.Pooch.fetch", unreachable)
    assert main(["reproduce", "salman-2019-table2", "--count", "1", "--out", str(tmp_path / "out")]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "nothing was begun, since files are missing for MLP-" in said
    assert "cannot fetch mnist_MLP_9_100_LPD.pth" in said
    assert said.count("cannot fetch") > 1 == said.count("or set RELUGAP_DATA")  # every file; once what to do
    assert len(tried) == len(set(tried)) > 1  # none is tried again
    assert not (tmp_path / "out").exists()
