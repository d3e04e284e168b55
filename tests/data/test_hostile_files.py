"""Names, folders and damaged files that could write elsewhere, lie on the screen, or hide everything else."""

from __future__ import annotations

import json
import os
import re
import stat
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import random_dense_network
from matplotlib.figure import Figure
from rich.console import Console
from stored_rows import ROW, numbered

from toolkit.cli import main
from toolkit.data.atomic import write_atomically, write_csv, write_text
from toolkit.data.names import csv_frame, csv_text, markdown_text, markup_text, path_name, plot_text, printable
from toolkit.networks.network import Network
from toolkit.report import pipe_table, write_report
from toolkit.runs.provenance import read_provenance
from toolkit.runs.shards import append_rows, prepare_folder, shard_paths
from toolkit.runs.store import PLAN, ROWS, DamagedResultsWarning, compact, damage, read_plan, read_rows, write_plan
from toolkit.runs.sweep.results import list_results, verify_folder
from toolkit.runs.sweep.run import run_sweep
from toolkit.runs.sweep.spec import load_spec, parse_spec

NASTY = (
    "=cmd|'/C calc'!A0 [bold red]YES[/] [/] <script>alert(1)</script> $x_2$ \x1b[31m\u202e a|b\n`c` [d](http://e) \\"
)


def spec_text(**changes: Any) -> str:
    values = {"name": "t", "samples": [0], "eps": [0.01], "rungs": ["dual"], "domain": [0, 1]} | changes
    lines = [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    return "\n".join(lines) + '\n[[networks]]\nsource = "zoo:digits-standard"\ndataset = "digits"\n'


# names that become paths


@pytest.mark.parametrize(
    "name",
    [
        "../../x", "/x", "a/b", "a\\b", "..", ".", ".hidden", "", " ", "-rf", "~", "x.", "x ", "C:x", "x:stream", "con",
        "NUL.txt", "com1", "LPT9.csv", "a\nb", "a\x00b", "a\x1b[0m", "a\u202eb", "x" * 101, "ℓ" * 100, "a?", "a*",
    ],
)  # fmt: skip
def test_names_that_are_no_part_of_a_path(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="name"):
        path_name(name, "name")
    with pytest.raises(ValueError, match="name"):
        parse_spec({"name": name, "samples": 1, "eps": [0.1], "rungs": ["dual"],
                    "networks": [{"source": "zoo:digits-standard", "dataset": "digits"}]})  # fmt: skip
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    Path("s.toml").write_text(spec_text(name=name), encoding="utf-8")
    assert main(["sweep", "s.toml", "--workers", "1"]) == 2
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "b", "s.toml"]


@pytest.mark.parametrize(
    "name", ["demo", "salman-2019-table1", "tiny & small", "ε = .1", "v1.2_b", "console", "company"]
)
def test_ordinary_names_stay(name: str) -> None:
    assert path_name(name, "name") == name


def test_names_from_elsewhere_are_no_paths(tmp_path: Path) -> None:
    for source in ("zoo:../network", "zoo:", "published:../../x", "published:"):
        with pytest.raises(ValueError, match=r"zoo network|published network"):
            Network.load(source)
    prepare_folder(tmp_path)
    with pytest.raises(ValueError, match="a run_id must"):
        append_rows(tmp_path, "../r1", [ROW])
    assert main(["train", str(tmp_path / "t.toml"), "--out", str(tmp_path)]) == 2
    (tmp_path / "t.toml").write_text('[[networks]]\nname = "../n"\ndataset = "digits"\nhidden = [4]\n')
    assert main(["train", str(tmp_path / "t.toml"), "--out", str(tmp_path / "out")]) == 2
    assert not (tmp_path / "out").exists()


# names on the screen and in files


def test_every_medium_has_its_escape() -> None:
    console = Console(width=500, file=open(os.devnull, "w"))  # noqa: SIM115
    shown = console.render_str(markup_text(NASTY)).plain
    assert "[bold red]YES[/] [/]" in shown
    assert not {"\x1b", "\n", "\u202e"} & set(printable(NASTY))
    assert csv_text("=1+1") == "'=1+1"
    assert [csv_text(text)[0] for text in ("+1", "-1", "@x", "\tx", "\rx", "＝1")] == ["'"] * 6
    assert csv_text("net = 1") == "net = 1"
    assert markdown_text("a|b") == "a\\|b"
    assert markdown_text("a\\|b") == "a\\\\\\|b"
    assert "<" not in markdown_text(NASTY)
    assert "](" not in markdown_text(NASTY)
    assert pipe_table(pd.DataFrame({"x": [NASTY], "y": [1.5]})).count("\n") == 3


def test_numbers_stay_numbers(tmp_path: Path) -> None:
    frame = pd.DataFrame({"name": ["=1", "a"], "x": [-1.5, 2.0], "n": [-3, 4], "c": pd.Categorical(["-b", "d"])})
    kept = csv_frame(frame)
    assert kept["x"].dtype == np.float64
    assert kept["n"].dtype == np.int64
    assert write_csv(tmp_path / "t.csv", frame).read_text() == "name,x,n,c\n'=1,-1.5,-3,'-b\na,2.0,4,d\n"
    assert frame["name"].tolist() == ["=1", "a"]


def test_dollars_are_no_mathematics() -> None:
    figure = Figure()
    title = figure.add_subplot().set_title(plot_text("costs $1$ and $\\nosuchcommand$ more"))
    figure.savefig(os.devnull, format="png")  # an unknown command would raise here
    assert title.get_text().count("\\$") == 4


@pytest.fixture(scope="module")
def nasty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of a network with a name that tries everything, reported in every form."""
    folder = tmp_path_factory.mktemp("nasty")
    network = Network.load("zoo:digits-standard")
    Network(network.layers, NASTY, input_shape=network.input_shape).save(folder / "n.npz")
    text = spec_text(eps=[0.01, 0.02], rungs=["dual", "lp"]).replace("zoo:digits-standard", "n.npz")
    (folder / "s.toml").write_text(text)
    run_sweep(folder / "s.toml", folder / "out", workers=1, progress=False)
    return folder


def assert_harmless(text: str) -> None:
    assert not {"\x1b", "\u202e", "\x07"} & set(text)
    assert "YES[/]" in "".join(text.split()).replace("\\", "") or "[boldred]" in "".join(text.split())


def test_a_nasty_name_in_commands(nasty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--data", "digits", "--eps", "0.01"]
    assert main(["certify", str(nasty / "n.npz"), *where, "--index", "0", "--rung", "dual"]) == 0
    assert_harmless(capsys.readouterr().out)
    out = str(nasty / "verdicts.csv")
    assert main(["certify", str(nasty / "n.npz"), *where, "--count", "2", "--ladder", "dual", "--out", out]) == 0
    assert_harmless(capsys.readouterr().out)
    assert main(["results", "ls", str(nasty)]) == 0
    assert main(["results", "show", str(nasty / "out")]) == 0
    assert main(["results", "verify", str(nasty / "out")]) == 0
    assert main(["results", "export", str(nasty / "out"), str(nasty / "rows.csv")]) == 0
    assert "\x1b" not in capsys.readouterr().out
    exported = pd.read_csv(nasty / "rows.csv")
    assert set(exported["network"]) == {f"'{NASTY}"}
    assert exported["eps"].dtype == np.float64
    broken = read_rows(nasty / "out").assign(lower=9.0, upper=1.0)
    with pytest.raises(ValueError, match="break the order"):
        write_report(broken, nasty / "broken")


def test_a_nasty_name_in_a_report(nasty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("plotly")
    out = nasty / "report"
    assert main(["report", str(nasty / "out"), "--out", str(out), "--html", "--formats", "png,svg"]) == 0
    assert_harmless(capsys.readouterr().out)
    for name in ("table.csv", "margins.csv"):
        text = (out / name).read_text()
        assert not any(line.lstrip('"').startswith("=") for line in text.splitlines())
        assert {pd.read_csv(out / name)["network"][0]} == {f"'{printable(NASTY)}"}
    markdown = (out / "table.md").read_text()
    assert len(markdown.splitlines()) == 2 + 4
    assert {line.replace("\\\\", "").replace("\\|", "").count("|") for line in markdown.splitlines()[2:]} == {
        markdown.splitlines()[1].count("|")
    }
    latex = (out / "table.tex").read_text()
    assert r"\$x\_2\$" in latex
    assert "$x_2$" not in latex
    page = re.sub(r"<script>.*?</script>", "", (out / "report.html").read_text(), flags=re.DOTALL)
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert not {"\x1b", "\u202e"} & set(page)
    assert "$x_2$" in (out / "certified.svg").read_text()  # as it is, not as mathematics
    assert (out / "tightness.png").stat().st_size > 1000


# writing in one step


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("error", [OSError("full"), KeyboardInterrupt(), SystemExit(1)])
def test_a_failed_write_leaves_the_old_file_and_no_draft(error: BaseException, tmp_path: Path) -> None:
    path = write_text(tmp_path / "deep" / "x.txt", "old")

    def half() -> None:
        with write_atomically(path, "w") as file:
            file.write("new, but only hal")
            raise error

    with pytest.raises(type(error)):
        half()
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_permissions_are_kept_and_links_are_not_followed(tmp_path: Path) -> None:
    path = write_text(tmp_path / "x.txt", "old")
    path.chmod(0o640)
    write_text(path, "new \ud800")
    assert (path.read_text(), mode(path)) == ("new ?", 0o640)
    victim = write_text(tmp_path / "victim", "mine")
    link = tmp_path / "link"
    link.symlink_to(victim)
    write_text(link, "theirs")
    assert (victim.read_text(), link.read_text(), link.is_symlink()) == ("mine", "theirs", False)
    with pytest.raises(IsADirectoryError, match="is a folder"):
        write_text(tmp_path, "x")
    write_text(os.devnull, "x")  # a device is written to, never replaced
    assert stat.S_ISCHR(Path(os.devnull).stat().st_mode)


SAVERS: dict[str, Callable[[Path], Any]] = {
    "network.npz": lambda path: random_dense_network(np.random.default_rng(0), (2, 2, 2)).save(path),
    "table.csv": lambda path: write_csv(path, pd.DataFrame({"x": [1]})),
    "plan.parquet": lambda path: write_plan(path.parent, ["a"]),
}


@pytest.mark.parametrize("name", list(SAVERS))
def test_writers_killed_before_the_end_change_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / name
    path.write_bytes(b"old")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        SAVERS[name](path)
    assert path.read_bytes() == b"old"
    assert [found.name for found in tmp_path.iterdir()] == [name]


# results folders


@pytest.fixture
def out(tmp_path: Path) -> Iterator[Path]:
    """k0 … k3 in rows.parquet, k4 and k5 in a shard."""
    folder = tmp_path / "results"
    prepare_folder(folder)
    rows = numbered(6)
    append_rows(folder, "r0001-aaaaaa", rows[:4])
    compact(folder)
    append_rows(folder, "r0001-aaaaaa", rows[4:])
    write_plan(folder, [row.key for row in rows])
    (folder / "provenance.json").write_text(json.dumps({"runs": [{"run_id": "r0001-aaaaaa"}]}))
    return folder


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def replace_by_loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def other_columns(path: Path) -> None:
    pd.DataFrame({"x": [1]}).to_parquet(path)


def other_types(path: Path) -> None:
    frame = pd.read_parquet(path)
    frame.assign(**{frame.columns[-1]: None}).assign(lower="low").to_parquet(path)


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[content.index(b"k2" if b"k2" in content else b"k0") + 1] ^= 4
    path.write_bytes(content)


DAMAGES = [truncate, empty, replace_by_folder, replace_by_loop, other_columns, other_types, flip_a_bit]


@pytest.mark.parametrize("harm", DAMAGES, ids=lambda harm: harm.__name__)
def test_damaged_rows_are_named_and_the_rest_is_shown(
    harm: Callable[[Path], None], out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    harm(out / ROWS)
    with pytest.warns(DamagedResultsWarning, match=r"rows\.parquet is damaged and left out"):
        assert read_rows(out)["key"].tolist() == ["k4", "k5"]
    assert [finding.text[:12] for finding in verify_folder(out) if finding.error] == ["rows.parquet"]
    for command in ("ls", "show", "verify"):
        code = main(["results", command, str(out)])
        assert code == (1 if command == "verify" else 0)
        shown = capsys.readouterr()
        assert "rows.parquet is damaged" in shown.out + shown.err
        assert "Traceback" not in shown.err
    assert main(["results", "export", str(out), str(out.parent / "x.jsonl")]) == 0
    assert "rows.parquet is damaged" in capsys.readouterr().err
    assert len((out.parent / "x.jsonl").read_text().splitlines()) == 2
    assert main(["results", "compact", str(out)]) == 0  # sets aside what it cannot read, and loses nothing
    (kept,) = out.glob("rows.parquet.damaged-*")
    assert damage(out) == []
    assert read_rows(out)["key"].tolist() == ["k4", "k5"]
    assert any(kept.name in finding.text and not finding.error for finding in verify_folder(out))


@pytest.mark.parametrize("harm", [truncate, empty, replace_by_folder, other_columns], ids=lambda harm: harm.__name__)
def test_a_damaged_plan_is_named(harm: Callable[[Path], None], out: Path) -> None:
    harm(out / PLAN)
    with pytest.warns(DamagedResultsWarning, match=r"plan\.parquet is damaged"):
        assert read_plan(out) is None
    with pytest.warns(DamagedResultsWarning, match=r"plan\.parquet is damaged"):
        assert len(read_rows(out)) == 6
    assert any("plan.parquet" in finding.text and finding.error for finding in verify_folder(out))


@pytest.mark.parametrize(
    ("column", "value"),
    [("lower", "low"), ("sample", 1.5), ("sample", 2**70), ("sample", True), ("network", 5), ("network", None),
     ("lower", None), ("schema", "1"), ("network", "\ud800"), ("upper", [1.0])],
)  # fmt: skip
def test_one_mistyped_line_costs_itself_only(column: str, value: object, out: Path) -> None:
    (shard,) = shard_paths(out)
    first, second = (json.loads(line) for line in shard.read_bytes().splitlines())
    shard.write_text(f"{json.dumps(first | {column: value})}\n{json.dumps(second)}\n")
    with pytest.warns(DamagedResultsWarning, match=f"{shard.name}: 1 lines are no rows"):
        assert read_rows(out)["key"].tolist() == ["k0", "k1", "k2", "k3", "k5"]
    assert any(shard.name in finding.text and finding.error for finding in verify_folder(out))
    with pytest.warns(DamagedResultsWarning):
        assert compact(out) == 5
    assert shard_paths(out) == [shard]  # what could not be read is not thrown away


@pytest.mark.parametrize("harm", [replace_by_folder, replace_by_loop], ids=lambda harm: harm.__name__)
def test_a_shard_that_is_no_file_is_named(harm: Callable[[Path], None], out: Path) -> None:
    (shard,) = shard_paths(out)
    harm(shard)
    with pytest.warns(DamagedResultsWarning, match=shard.name):
        assert len(read_rows(out)) == 4
    with pytest.warns(DamagedResultsWarning, match=shard.name):
        assert compact(out) == 4
    assert shard.name in {path.name for path in (out / "shards").iterdir()}


def test_a_line_cut_short_is_what_a_killed_writer_leaves(out: Path) -> None:
    (shard,) = shard_paths(out)
    truncate(shard)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(read_rows(out)) == 5
    assert not [finding for finding in verify_folder(out) if finding.error]


def test_surrogates_come_back_as_question_marks(out: Path) -> None:
    """A name from an undecodable file name must not make a row that no reader can read."""
    append_rows(out, "r0001-aaaaaa", [numbered(7, network="n\udcff", message="\ud800")[6]])
    assert read_rows(out, everything=True)["network"].tolist()[-1] == "n?"
    assert damage(out) == []


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"runs": 5}', '{"runs": [5]}', '{"runs": [{"run_id": "../x"}]}', "\ufeff{}", "[" * 100_000,
     '{"runs": [{"run_id": "r0001-aaaaaa", "spec": {"name": ["x"]}}]}',
     '{"runs": [{"run_id": "r0001-aaaaaa", "solvers": {"highs": 1}}]}',
     '{"runs": [{"run_id": "r0001-aaaaaa", "networks": [1]}]}', '{"runs": [{"relugap": "1.0"}], "runs": []}'],
)  # fmt: skip
def test_damaged_provenance_is_named_and_rows_are_read(
    text: str, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (out / "provenance.json").write_text(text)
    with pytest.warns(DamagedResultsWarning, match=r"provenance\.json is damaged and not used"):
        assert read_provenance(out) == []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert list_results(out.parent)["rows"].tolist() == [6]
    assert any("provenance.json" in finding.text for finding in verify_folder(out) if finding.error)
    assert main(["results", "show", str(out)]) == 0
    assert "provenance.json is damaged" in capsys.readouterr().err


def test_a_sweep_goes_on_in_a_damaged_folder(tmp_path: Path) -> None:
    """What is damaged is computed again, under a run that sorts after the rows that are left."""
    spec = parse_spec(
        {"name": "t", "samples": [0, 1], "eps": [0.01], "rungs": ["dual"], "domain": [0, 1],
         "networks": [{"source": "zoo:digits-standard", "dataset": "digits"}]}
    )  # fmt: skip
    first = run_sweep(spec, tmp_path, workers=1, progress=False)
    append_rows(tmp_path, "r0007-bbbbbb", [replace(ROW, run_id="r0007-bbbbbb")])
    truncate(tmp_path / ROWS)
    (tmp_path / "provenance.json").write_text("{")
    with pytest.warns(DamagedResultsWarning) as caught:
        again = run_sweep(spec, tmp_path, workers=1, progress=False)
    assert {"rows.parquet" in str(one.message) for one in caught} == {True, False}
    assert again["key"].tolist() == first["key"].tolist()
    assert again["lower"].tolist() == first["lower"].tolist()
    (run_id,) = set(again["run_id"])
    assert run_id.startswith("r0008-")
    assert [run["run_id"] for run in read_provenance(tmp_path)] == [run_id]
    assert len(list(tmp_path.glob("*.damaged-*"))) == 2
    assert damage(tmp_path) == []


# specs


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            spec_text().replace("samples", "smaples"),
            r"s\.toml: line 2: unknown key 'smaples'; .*did you mean 'samples'\?",
        ),
        (spec_text(eps=[0.1, -1]), r"s\.toml: line 3: eps: eps must be finite and ≥ 0, got -1"),
        (spec_text() + "epz = [1]\n", r"s\.toml: line 9: unknown key 'networks\[0\]\.epz'; .*did you mean 'eps'\?"),
        (spec_text() + '[[networks]]\nsource = "zoo:x"\n', r"s\.toml: line 10: networks\[1\]\.source: unknown zoo"),
        (spec_text(samples=True), "samples must not be true or false"),
        (spec_text(eps=[True]), "eps must not be true or false"),
        (spec_text(seed=False), "seed must not be true or false"),
        ("name = 'x\n", r"s\.toml is not valid TOML: .*line 1"),
        ("a = " + "[" * 50_000, r"s\.toml is not valid TOML"),
        ("\ud800", r"s\.toml is not valid TOML"),
        (spec_text(name="n" * 100_000), "at most 100 characters, got 100000"),
    ],
)
def test_spec_errors_name_file_line_and_key(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ValueError, match=message) as caught:
        load_spec(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize("command", ["sweep", "report", "train", "check", "certify", "results"])
def test_folders_and_missing_files_are_errors_in_one_line(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, missing = str(tmp_path), str(tmp_path / "no\nsuch\x1bfile.npz")
    arguments = {
        "sweep": [folder], "report": [missing], "train": [folder, "--out", folder],
        "check": [folder, "--network", "zoo:digits-standard"], "results": ["show", missing],
        "certify": [missing, "--data", "digits", "--index", "0", "--eps", "0.1"],
    }[command]  # fmt: skip
    assert main([command, *arguments]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: ")
    assert shown.count("\n") == 1
    assert "\x1b" not in shown


# checkpoints of training


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("weights", lambda old: [old[0][:1], *old[1:]], "weight 0 is"),
        ("weights", lambda old: [old[0] * float("nan"), *old[1:]], "weight 0 must be finite"),
        ("weights", lambda old: [old[0].double(), *old[1:]], "weight 0 is .*float64"),
        ("weights", lambda old: old[:-1], "it has 3 weights, the network 4"),
        ("history", lambda old: [old[0] | {"loss": "low"}], "history must hold epoch 1 as numbers"),
        ("history", lambda old: [old[0] | {"epoch": 7}], "history must hold epoch 1 as numbers"),
        ("extra", lambda _: 1, "unknown key 'extra'"),
    ],
)
def test_checkpoints_are_checked_before_a_weight_is_set(
    key: str, value: Callable[[Any], Any], message: str, tmp_path: Path
) -> None:
    torch = pytest.importorskip("torch")
    from toolkit.training.checkpoint import load_checkpoint, save_checkpoint

    weights = [torch.ones(3, 2), torch.ones(3), torch.ones(2, 3), torch.ones(2)]
    optimizer = torch.optim.SGD([weight.requires_grad_() for weight in weights], 0.1)
    path = tmp_path / "n.pt"
    save_checkpoint(path, "d", [2 * weight for weight in weights], optimizer, [{"epoch": 1, "loss": 0.5}], {})
    state = torch.load(path, weights_only=True)
    torch.save(state | {key: value(state.get(key))}, path)
    with pytest.raises(ValueError, match=rf"n\.pt is not a checkpoint .*{message}"):
        load_checkpoint(path, "d", weights, optimizer, {})
    assert all(bool((weight == 1).all()) for weight in weights)
    torch.save(state, path)
    assert load_checkpoint(path, "d", weights, optimizer, {}) == [{"epoch": 1, "loss": 0.5}]
    assert all(bool((weight == 2).all()) for weight in weights)
