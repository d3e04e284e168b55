"""What scripts need: one JSON object on stdout and nothing else, exit codes, a log, completion, witnesses as files."""

from __future__ import annotations

import json
import logging
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer.main

import toolkit
from toolkit import Dense, LinfBall, Network, load_dataset, run_sweep
from toolkit.cli import image_answer, main
from toolkit.cli.app import app
from toolkit.cli.json_output import JSON_FORMAT, plain
from toolkit.rungs.rung import Rung
from toolkit.runs.sweep.spec import parse_spec

NET = "zoo:digits-standard"
ONE = ["certify", NET, "--data", "digits", "--index", "3"]
HEAD = {"command", "format", "relugap"}
PAGE = Path(__file__).parents[2] / "docs" / "cli.md"


def answered(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> dict[str, Any]:
    """The object a command prints; nothing else may be on stdout."""
    assert main([str(argument) for argument in arguments]) == code
    content: dict[str, Any] = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(name))
    assert {"format": content["format"], "relugap": content["relugap"]} == {
        "format": JSON_FORMAT,
        "relugap": version("relugap"),
    }
    return content


def documented(command: str) -> set[str]:
    """The keys that docs/cli.md lists for a command."""
    (line,) = re.findall(rf"^\| `{command}` \| (.*) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return set(re.findall(r"`(\w+)`", line))


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("swept") / "tiny"
    networks = [{"source": NET, "dataset": "digits"}]
    spec = parse_spec({"name": "tiny", "samples": [3], "eps": [0.01], "rungs": ["dual"], "networks": networks})
    run_sweep(spec, out, workers=1, progress=False)
    return out


def test_every_object_has_the_keys_that_the_page_lists(
    swept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    proof = tmp_path / "p.npz"
    certify = [*ONE, "--eps", "0.01", "--rungs", "dual", "--json"]
    calls: dict[str, list[object]] = {
        "certify": [*certify, "--proof", proof],
        "certify --count": ["certify", NET, "--data", "digits", "--count", 2, "--eps", 0.01, "--json"],
        "radius": ["radius", *ONE[1:], "--rungs", "pgd,dual", "--tolerance", 0.05, "--json"],
        "radius --count": ["radius", *ONE[1:4], "--count", 1, "--rungs", "dual", "--largest", 0.05,
                           "--tolerance", 0.02, "--out", tmp_path / "radii", "--json"],
        "check": ["check", proof, "--network", NET, "--json"],
        "doctor": ["doctor", "--json"],
        "results ls": ["results", "ls", swept.parent, "--json"],
        "results show": ["results", "show", swept, "--json"],
        "results verify": ["results", "verify", swept, "--json"],
        "results compact": ["results", "compact", swept, "--json"],
        "results export": ["results", "export", swept, tmp_path / "rows.csv", "--json"],
    }  # fmt: skip
    rows = 9  # a target each
    said: dict[str, dict[str, object]] = {
        "certify --count": {"count": 2, "data": "digits"},
        "check": {"verdict": "VERIFIED", "label": int(load_dataset("digits").labels[3])},
        "doctor": {"passed": True},
        "results show": {"name": "tiny", "rows": rows, "planned": rows, "runs": 1},
        "results verify": {"whole": True, "findings": []},
        "results compact": {"rows": rows},
        "results export": {"written": str(tmp_path / "rows.csv")},
    }
    for name, arguments in calls.items():
        found = answered(capsys, *arguments)
        assert set(found) - HEAD == documented(name), name
        assert found.items() >= said.get(name, {}).items(), name
        assert found["command"] == name.removesuffix(" --count")


def test_verify_has_all_its_keys_whatever_the_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Network([Dense([[1.0], [-1.0]], [0.0, 0.0]), Dense([[1.0, 1.0]], [0.0])]).save(tmp_path / "absolute.npz")
    for level, word in (("0.75", "sat"), ("1.75", "unsat")):
        (tmp_path / "q.vnnlib").write_text(
            "(declare-const X_0 Real)\n(declare-const Y_0 Real)\n(assert (>= X_0 -1.0))\n(assert (<= X_0 1.0))\n"
            f"(assert (>= Y_0 {level}))\n"
        )
        found = answered(capsys, "verify", tmp_path / "q.vnnlib", "--network", tmp_path / "absolute.npz", "--json")
        assert found["status"] == word
        assert set(found) - HEAD == documented("verify")


def test_a_rejected_proof_is_an_object_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    proof = tmp_path / "p.npz"
    assert main([*ONE, "--eps", "0.01", "--rungs", "dual", "--proof", str(proof)]) == 0
    capsys.readouterr()
    found = answered(capsys, "check", proof, "--network", "zoo:digits-dual", "--json", code=1)
    assert found["verdict"] == "REJECTED"
    assert "network" in found["reason"]
    assert set(found) - HEAD == documented("check")


def test_numbers_that_json_has_not_are_null() -> None:
    assert plain({"a": np.array([1.0, np.inf, np.nan]), "b": (True, 3, None), 1: np.float64(0.5)}) == {
        "a": [1.0, None, None], "b": [True, 3, None], "1": 0.5,
    }  # fmt: skip
    with pytest.raises(TypeError, match="no JSON of a object"):
        plain(object())


@pytest.mark.parametrize(("eps", "rungs", "code"), [("0.001", "dual", 0), ("0.3", "pgd", 10), ("0.3", "interval", 20)])
def test_exit_codes_say_the_verdict(eps: str, rungs: str, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    asked = [*ONE, "--eps", eps, "--rungs", rungs]
    assert main([*asked, "--exit-code"]) == code
    assert main(asked) == 0
    capsys.readouterr()


def test_the_exit_code_of_many_is_the_worst(capsys: pytest.CaptureFixture[str]) -> None:
    batch = ["certify", NET, "--data", "digits", "--rungs", "interval", "--exit-code", "--eps"]
    assert main([*batch, "0.0001", "--count", "2"]) == 0
    assert main([*batch, "0.1", "--count", "2"]) == 20
    assert main([*batch, "0.1", "--count", "3"]) == 10  # the third is misclassified
    assert main([*batch, "x", "--count", "3"]) == 2
    capsys.readouterr()


def test_a_witness_as_numbers_and_as_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network, data = Network.load(NET), load_dataset("digits")
    asked = [*ONE, "--eps", "0.3", "--rungs", "pgd", "--save-witness"]
    assert main([*asked, str(tmp_path / "w.npy")]) == 0
    assert "unsafe point: " in capsys.readouterr().out
    point = np.load(tmp_path / "w.npy")
    assert point.shape == network.input_shape
    assert LinfBall(data.images[3], 0.3, (0, 1)).contains(point)
    assert int(network.predict(point.ravel())) != int(data.labels[3])
    assert main([*asked, str(tmp_path / "w.png")]) == 0
    assert (tmp_path / "w.png").read_bytes().startswith(b"\x89PNG")
    capsys.readouterr()
    again = [
        "certify",
        NET,
        "--image",
        str(tmp_path / "w.npy"),
        "--label",
        str(data.labels[3]),
        "--eps",
        "0",
        "--rungs",
        "dual",
    ]
    assert main([*again, "--exit-code"]) == 10  # what was written is the point itself
    safe = [*ONE, "--eps", "0.001", "--rungs", "dual", "--save-witness", str(tmp_path / "no.npy")]
    assert main(safe) == 0
    assert "no unsafe point was found, no.npy is not written" in capsys.readouterr().out
    assert not (tmp_path / "no.npy").exists()


def test_a_picture_of_no_picture_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Network([Dense(np.eye(5), np.zeros(5))]).save(tmp_path / "v.npz")
    np.save(tmp_path / "x.npy", np.full(5, 0.5))
    asked = [str(tmp_path / "v.npz"), "--image", str(tmp_path / "x.npy"), "--label", "2"]
    monkeypatch.setattr(image_answer, "layer_bounds", None)
    for command in (["certify", *asked, "--eps", "0.5"], ["radius", *asked]):
        assert main([*command, "--save-witness", str(tmp_path / "w.png")]) == 2
        told = capsys.readouterr()
        assert "a picture has 1 or 3 channels of height×width, the network takes (5,); save a .npy" in told.err
        assert told.out == ""


def test_a_witness_that_cannot_be_written_leaves_the_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("toolkit.cli.certify.save_witness", full)
    asked = [*ONE, "--eps", "0.3", "--rungs", "pgd", "--save-witness", str(tmp_path / "w.npy")]
    assert main([*asked, "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["verdict"] == "NO"


def test_the_time_limit_is_the_images_own(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What every rung may take for all its margins, and then the verdict, is at most what is left of the image's."""
    shares: list[float] = []
    limits: list[float | None] = []
    call, verdict = Rung.__call__, image_answer.certify

    def counted(rung: Rung, problem: Any) -> Any:
        shares.append(len(problem.objective) * (problem.settings.time_limit or np.inf))
        return call(rung, problem)

    def limited(*args: Any, **kwargs: Any) -> Any:
        limits.append(kwargs["time_limit"])
        monkeypatch.setattr(Rung, "__call__", call)  # the verdict's own rungs have their clock
        return verdict(*args, **kwargs)

    monkeypatch.setattr(image_answer, "layer_bounds", _unbounded(monkeypatch, counted))
    monkeypatch.setattr(image_answer, "certify", limited)
    assert main([*ONE, "--eps", "0.01", "--rungs", "dual,crown,lp", "--time-limit", "40"]) == 0
    capsys.readouterr()
    assert len(shares) == 3
    assert shares[0] <= 40 / 4
    assert max(shares) <= 40 / 2  # what is left is shared with those to come
    (left,) = limits
    assert left is not None
    assert left <= 40


def _unbounded(monkeypatch: pytest.MonkeyPatch, counted: Any) -> Any:
    """layer_bounds, whose own calls of rungs are not counted."""
    layers = image_answer.layer_bounds

    def bounded(*args: Any, **kwargs: Any) -> Any:
        found = layers(*args, **kwargs)
        monkeypatch.setattr(Rung, "__call__", counted)
        return found

    return bounded


def test_quiet_and_verbose_change_stderr_alone(capsys: pytest.CaptureFixture[str]) -> None:
    batch = ["certify", NET, "--data", "digits", "--count", "2", "--eps", "0.001", "--rungs", "dual"]
    assert main(batch) == 0
    plainly = capsys.readouterr()
    assert "certifying: 2/2" in plainly.err
    assert main([*batch, "-q"]) == 0
    assert capsys.readouterr().err == ""
    assert main([*ONE, "--eps", "0.001", "--rungs", "dual", "-v"]) == 0
    assert "INFO relugap.certify: YES in" in capsys.readouterr().err
    assert main([*ONE, "--eps", "0.001", "--rungs", "dual", "--log-level", "debug"]) == 0
    capsys.readouterr()
    assert logging.getLogger("relugap").level == logging.NOTSET  # a command called from Python leaves the log alone
    assert not logging.getLogger("relugap").handlers
    for wrong, told in (("-v -q", "contradict"), ("--log-level loud", "--log-level must be one of debug")):
        assert main([*ONE, "--eps", "0.001", *wrong.split()]) == 2
        assert told in capsys.readouterr().err


def test_every_command_has_the_options_of_all() -> None:
    def leaves(command: Any, name: str) -> list[tuple[str, Any]]:
        inside = getattr(command, "commands", None)
        return (
            [(name, command)]
            if inside is None
            else [one for key in inside for one in leaves(inside[key], f"{name} {key}")]
        )

    commands = dict(leaves(typer.main.get_command(app), "relugap"))
    assert len(commands) > 15
    text = PAGE.read_text(encoding="utf-8")
    for name, command in commands.items():
        options = {option for parameter in command.params for option in parameter.opts}
        assert {"--verbose", "-v", "--quiet", "-q", "--log-level", "--debug"} <= options, name
        assert f"`{name}" in text, f"docs/cli.md has no {name}"
        if "--json" in options:
            assert re.search(rf"^\| `{name.removeprefix('relugap ')}` \|", text, re.MULTILINE), name


def test_versions_agree(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"relugap {version('relugap')}\n"
    assert toolkit.__version__ == version("relugap")


@pytest.mark.parametrize(
    ("words", "follows"),
    [
        ("relugap certi", "certify"),
        ("relugap certify zoo:digits-st", "zoo:digits-standard"),
        ("relugap certify --data mnist5", "mnist5k"),
    ],
)
def test_a_shell_is_told_what_may_follow(
    words: str, follows: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = {"_RELUGAP_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    for name, value in asked.items():
        monkeypatch.setenv(name, value)
    assert main([]) == 0
    assert capsys.readouterr().out.split() == [follows]
