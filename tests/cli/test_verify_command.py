"""relugap verify and supports: what goes to stdout, to files and to the shell, and the three VNN-COMP scripts."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from onnx_models import write_onnx

from toolkit.cli import main

FIRST = "(declare-const X_0 Real)(declare-const Y_0 Real)(assert (>= X_0 -1))(assert (<= X_0 1))(assert (>= Y_0 {}))"
SECOND = """(vnnlib-version <2.0>)
(declare-network f (declare-input A {0} [1,1]) (declare-output B {0} [1]))
(assert (>= A[0,0] -1.0)) (assert (<= A[0,0] 1.0)) (assert (>= B[0] 0.75))
"""
SCRIPTS = Path(__file__).parents[2] / "experiments" / "vnncomp"


@pytest.fixture
def net(tmp_path: Path) -> Path:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (extra: onnx)")
    return write_onnx(tmp_path / "net.onnx", [([[1.0], [-1.0]], [0.0, 0.0]), ([[1.0, 1.0]], [0.0])])


def written(folder: Path, text: str) -> Path:
    path = folder / "query.vnnlib"
    path.write_text(text)
    return path


def test_sat_prints_the_word_and_the_point_in_vnncomp_form(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = net.parent / "out.txt"
    query = written(net.parent, FIRST.format("0.75"))
    assert main(["verify", str(query), "--network", str(net), "--results", str(results)]) == 0
    out, err = capsys.readouterr()
    assert results.read_text() == out
    word, *point = out.splitlines()
    assert word == "sat"
    found = re.fullmatch(r"\(\(X_0 (\S+)\)\n\(Y_0 (\S+)\)\)", "\n".join(point))
    assert found is not None
    assert abs(float(found[1])) == float(found[2]) >= 0.75
    assert "onnxruntime agrees" in err


@pytest.mark.parametrize(("level", "word", "code"), [("0.5", "sat", 10), ("1.5", "unsat", 0)])
def test_exit_codes_and_json(net: Path, capsys: pytest.CaptureFixture[str], level: str, word: str, code: int) -> None:
    query = written(net.parent, FIRST.format(level))
    given = ["verify", str(query), "--network", str(net), "--timeout", "30"]
    assert main([*given, "--exit-code"]) == code
    assert capsys.readouterr().out.splitlines()[0] == word
    assert main([*given, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["status"] == word
    assert found["certified"]


def test_version_2_names_its_network_and_prints_tensors(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    query = written(net.parent, SECOND.format("Real"))
    assert main(["verify", str(query), "--network", f"f={net}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["sat", "A Real [1,1]"]
    assert lines[3] == "B Real [1]"
    assert abs(float(lines[2])) == float(lines[4]) >= 0.75
    assert main(["verify", str(query), "--network", f"g={net}"]) == 2
    assert "the query declares 'f'" in capsys.readouterr().err


def test_machine_numbers_are_taken_as_reals_only_where_asked(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    query = written(net.parent, SECOND.format("float32"))
    given = ["verify", str(query), "--network", f"f={net}"]
    assert main(given) == 2
    assert "--as-real" in capsys.readouterr().err
    assert main([*given, "--as-real"]) == 0
    assert capsys.readouterr().out.startswith("sat\nA float32 [1,1]\n")


def test_bad_input_is_one_line_and_code_2(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    query = written(net.parent, FIRST.format("Y_7"))
    assert main(["verify", str(query), "--network", str(net)]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert "line 1" in err
    assert "'Y_7'" in err
    assert main(["verify", str(query), "--network", str(net), "--timeout", "0"]) == 2


def test_timed_out_is_said_in_time_whatever_runs(tmp_path: Path) -> None:
    program = (
        "import sys, time, types, toolkit.cli as c\n"
        "sys.modules['toolkit.verify.queries'] = types.SimpleNamespace(verify_query=lambda *_, **__: time.sleep(60))\n"
        "raise SystemExit(c.main(['verify', 'q.vnnlib', '--network', 'n.onnx', '--timeout', '0.3', '--exit-code']))"
    )
    (tmp_path / "q.vnnlib").write_text(FIRST.format("0.5"))
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False
    )
    assert (done.stdout, done.returncode) == ("timed-out\n", 20)


def test_supports_answers_the_standard_s_questions(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnx", reason="onnx is not installed (extra: onnx)")
    assert main(["supports", "--vnnlib-versions"]) == 0
    assert capsys.readouterr().out.split() == ["1.0", "2.0"]
    assert main(["supports", "--onnx-operators"]) == 0
    assert {"Gemm", "Relu", "Conv"} <= set(capsys.readouterr().out.split())
    assert main(["supports"]) == 0
    assert "--multiple-network-theories\nSNET\n" in capsys.readouterr().out


@pytest.mark.skipif(os.name != "posix", reason="the scripts are for bash")
def test_the_vnncomp_scripts(net: Path) -> None:
    relugap = net.parent / "relugap"
    relugap.write_text(
        f'#!/bin/bash\nexec {sys.executable} -c "import toolkit.cli as c; raise SystemExit(c.main())" "$@"\n'
    )
    relugap.chmod(0o755)
    results, query = net.parent / "results.txt", written(net.parent, FIRST.format("1.5"))
    environment = {**os.environ, "RELUGAP": str(relugap), "PYTHONPATH": str(SCRIPTS.parents[1])}
    files = ["v1", "test", str(net), str(query)]
    subprocess.run([SCRIPTS / "prepare_instance.sh", *files], check=True)
    subprocess.run([SCRIPTS / "run_instance.sh", *files, results, "30"], check=True, env=environment)
    assert results.read_text() == "unsat\n"
    assert subprocess.run([SCRIPTS / "prepare_instance.sh", "v1", "c", "none", "none"], check=False).returncode == 1
