"""Every command's bad input is one line and exit code 2, before any output: none ends in a traceback or in nonsense."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from toolkit import Dense, Network
from toolkit.cli import main

NET = "zoo:digits-standard"
ONE = f"certify {NET} --data digits --index 3 --eps 0.01 --rungs dual"
BATCH = f"certify {NET} --data digits --count 2 --eps 0.01"
IMAGE = f"certify {NET} --label 1 --eps 0.1 --image"

# command → what its one line must hold
CALLS = {
    "--wrong": "No such option",
    "certfy": "Did you mean 'certify'",
    f"{ONE} --rungz dual": "--rungs",
    "certify": "Missing argument 'network'",
    f"certify {NET}": "--eps",
    f"{ONE} --index -1": "--index must be in 0 … 499",
    f"{ONE} --index 500": "--index must be in 0 … 499",
    f"{ONE} --index 1.5": "--index",
    f"{ONE} --index 99999999999999999999999": "--index must be in 0 … 499",
    f"{ONE} --eps inf": "eps must be finite",
    f"{ONE} --eps 1e400": "eps must be finite",
    f"{ONE} --eps nan": "eps must be finite",
    f"{ONE} --eps -0.1": "eps must be finite and ≥ 0",
    f"{ONE} --eps 0,01": "--eps",
    f"{ONE} --eps=": "--eps",
    f"{ONE} --domain 0,1,2": "--domain must be LOW,HIGH",
    f"{ONE} --domain a,b": "--domain must be LOW,HIGH",
    f"{ONE} --domain=": "--domain must be LOW,HIGH",
    f"{ONE} --domain nan,nan": "domain must have low < high",
    f"{ONE} --domain 0,0": "domain must have low < high",
    f"{ONE} --domain 0.9,1": "center must lie in the domain",
    f"{ONE} --target 8": "differ from the label 8",
    f"{ONE} --target -1": "target must be in 0 … 9",
    f"{ONE} --target 0 --target 0": "targets must not repeat a class, got 0 twice",
    f"{ONE} --target x": "--target",
    f"{ONE} --label -1": "label must be in 0 … 9, got -1",
    f"{ONE} --label x": "--label",
    f"{ONE} --rungs=": "--rungs must be names",
    f"{ONE} --rungs dual,,lp": "--rungs must be names",
    f"{ONE} --rung wrong": "unknown rung 'wrong'",
    f"{ONE} --bounds=": "--bounds must be names",
    f"{ONE} --bounds pgd": "upper bounds only",
    f"{ONE} --solver=": "unknown solver ''",
    f"{ONE} --time-limit -1": "time_limit must be > 0",
    f"{ONE} --time-limit nan": "time_limit must be > 0",
    f"{ONE} --architecture x": "only .pth and .pt files take an architecture",
    f"{ONE} --out x.csv": "--out is for --count",
    f"{ONE} --workers 2": "--workers is for --count",
    f"{ONE} --proof p.txt": "proofs are written as .npz",
    f"{ONE} --proof folder.npz": "is a folder",
    f"{ONE} --count 5": "--count needs --data and neither",
    f"{BATCH} --count 0": "--count must be in 1 … 500",
    f"{BATCH} --count 501": "--count must be in 1 … 500",
    f"{BATCH} --count x": "--count",
    f"{BATCH} --workers 0": "--workers",
    f"{BATCH} --workers -1": "--workers",
    f"{BATCH} --workers abc": "--workers",
    f"{BATCH} --ladder wrong": "unknown rung 'wrong'",
    f"{BATCH} --ladder=": "--ladder must be names",
    f"{BATCH} --bounds pgd": "upper bounds only",
    f"{BATCH} --eps -1": "eps must be finite",
    f"{BATCH} --eps nan": "eps must be finite",
    f"{BATCH} --time-limit 0": "time_limit must be > 0",
    f"{BATCH} --domain 0.9,1": "center must lie in the domain",
    f"{BATCH} --out folder.npz": "is a folder",
    f"{BATCH} --proof p.npz": "--proof is for one image",
    f"{BATCH} --label 3": "--label is for one image",
    f"{BATCH} --target 3": "--target is for one image",
    f"{BATCH} --rungs wrong": "unknown rung 'wrong'",
    f"{BATCH} --data cifar": "unknown data set 'cifar'",
    "certify one.npz --data digits --count 2 --eps 0.01": "at least two outputs (classes), the network has 1 output",
    "certify one.npz --data digits --index 3 --eps 0.01": "at least two outputs (classes), the network has 1 output",
    "certify five.npz --data digits --count 20 --eps 0.01": "digits has label 5, the network has 5 classes",
    "certify five.npz --data digits --index 3 --eps 0.01": "label must be in 0 … 4, got 8",
    "certify empty.npz --data digits --index 3 --eps 0.01": "empty.npz is not a relugap network",
    "certify folder.npz --data digits --index 3 --eps 0.01": "no network file at folder.npz",
    "certify zoo: --data digits --index 3 --eps 0.01": "no zoo network ''",
    "certify published:x --data digits --index 3 --eps 0.01": "unknown published network",
    f"{IMAGE} text.npy": "text.npy",
    f"{IMAGE} nan.npy": "nan.npy",
    f"{IMAGE} short.npy": "short.npy",
    f"{IMAGE} none.npy": "no image file at none.npy",
    f"{IMAGE} short.npy --index 3": "one image already",
    "check none.npz --network " + NET: "no proof at none.npz",
    "check none.npz": "--network",
    f"check empty.npz --network {NET} --index 3": "--data and --index go together",
    "sweep": "Missing argument 'spec'",
    "sweep none.toml": "no spec file at none.toml",
    "sweep empty.toml": "empty.toml: key 'name' is missing",
    "sweep binary.toml": "binary.toml is not valid TOML",
    "sweep folder.npz": "no spec file at folder.npz",
    "sweep one.toml": "at least two outputs (classes), the network has 1 output",
    "sweep five.toml": "has label",
    "sweep good.toml --workers 0": "--workers",
    "sweep good.toml --workers abc": "--workers",
    "sweep good.toml --rerun x": "unknown rerun 'x'; allowed: failed, timeout, all",
    "sweep good.toml --max-hours 0": "max_hours must be > 0",
    "sweep good.toml --max-hours nan": "max_hours must be > 0",
    "sweep good.toml --out empty.npz": "empty.npz",
    "report none": "no results folder at none",
    "report folder.npz": "no rows to report",
    "report folder.npz --formats exe": "formats must be among",
    "report folder.npz --formats=": "--formats must be names",
    "report folder.npz --tolerance x": "--tolerance",
    "results wrong": "No such command 'wrong'",
    "results ls none": "no folder at none",
    "results show none": "no results folder at none",
    "results show folder.npz": "no sweep has run in folder.npz",
    "results verify folder.npz": "no sweep has run in folder.npz",
    "results compact none": "no results folder at none",
    "results export none x.csv": "no results folder at none",
    "results watch none": "no sweep has run in none",
    "results watch folder.npz --every 0": "--every",
    "reproduce wrong": "unknown experiment 'wrong'",
    "reproduce all --out x": "--out is for one experiment",
    "reproduce tightness --count 0": "--count",
    "reproduce tightness --workers 0": "--workers",
    "train good.toml": "--out",
    "train none.toml --out x": "no training file at none.toml",
    "doctor --x": "No such option",
    "demo --workers 0": "--workers",
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _in_a_folder_of_bad_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("bad")
    for name, outputs in (("one", 1), ("five", 5)):
        Network([Dense(np.ones((outputs, 64)))], name).save(folder / f"{name}.npz")
    for name, source in (("one", "one.npz"), ("five", "five.npz"), ("good", NET)):
        text = f'name = "t"\nsamples = 20\neps = [0.01]\nrungs = ["dual"]\n[[networks]]\nsource = "{source}"\n'
        (folder / f"{name}.toml").write_text(f'{text}dataset = "digits"\n')
    for name in ("empty.npz", "empty.toml"):
        (folder / name).touch()
    (folder / "binary.toml").write_bytes(b"\xff\xfe\x00")
    (folder / "text.npy").write_text("no array")
    np.save(folder / "nan.npy", np.full(64, np.nan))
    np.save(folder / "short.npy", np.zeros(3))
    (folder / "folder.npz").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield


@pytest.mark.parametrize("call", CALLS)
def test_a_bad_call_is_one_line(call: str, capsys: pytest.CaptureFixture[str]) -> None:
    if call.startswith("train "):
        pytest.importorskip("torch")
    before = sorted(path.name for path in Path().iterdir())
    assert main(call.split()) == 2
    found = capsys.readouterr()
    assert found.out == ""
    assert found.err.startswith("error: ")
    assert found.err.count("\n") == 1
    assert str(CALLS[call]) in found.err
    assert sorted(path.name for path in Path().iterdir()) == before  # refused before anything is written


@pytest.mark.parametrize(
    "command",
    ["demo", "certify", "check", "sweep", "report", "reproduce", "train", "doctor", "results"]
    + [f"results {name}" for name in ("ls", "show", "export", "verify", "compact", "watch")],
)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command.split(), "--help"]) == 0
    assert f"relugap {command}" in capsys.readouterr().out
