"""`--property` on the command line: certify, its proofs, and radius."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from toolkit import LinfBall, Network, Property, certify, closest, load_dataset
from toolkit.certificates.check import check_proof
from toolkit.cli import main
from toolkit.networks.layers import Dense
from toolkit.problems.property_table import load_property
from toolkit.runs.batch import BatchPlan, certify_samples
from toolkit.runs.distances import DistancePlan, check_distances

NET = "zoo:digits-standard"
ASKED = [NET, "--data", "digits", "--index", "3"]  # an 8


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """The logit of class 8 is above that of 0, or above that of 1 by 2; and it is above −5."""
    rows = np.zeros((3, 10), dtype=int)
    rows[:, 8] = 1
    rows[0, 0] = rows[1, 1] = -1
    path = tmp_path / "eight.toml"
    path.write_text(f"rows = {rows.tolist()}\nconstants = [0, -2, 5]\ngroups = [0, 0, 1]\n")
    return path


def test_certify_prints_groups_and_its_proof_is_of_the_property(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    proof = tmp_path / "p.npz"
    certify = ["certify", *ASKED, "--eps", "0.02", "--property", str(table), "--rungs", "dual,lp,exact"]
    assert main([*certify, "--proof", str(proof)]) == 0
    shown = capsys.readouterr().out
    assert "property eight.toml" in shown
    assert "class 8" not in shown
    assert all(f"group {g}" in shown for g in (0, 1))
    assert "YES: every margin has a certified lower bound > 0" in " ".join(shown.split())
    own = ["check", str(proof), "--network", NET, "--data", "digits", "--index", "3"]
    assert main(own) == 1  # an image alone does not say which property
    assert "name it by --property" in " ".join(capsys.readouterr().out.split())
    assert main([*own, "--property", str(table)]) == 0
    assert "the property holds everywhere in the set" in " ".join(capsys.readouterr().out.split())
    checked, asked = check_proof(proof, Network.load(NET)), load_property(table)
    assert checked.label is None
    np.testing.assert_array_equal(checked.question.objective.rows, asked.objective.rows)
    np.testing.assert_array_equal(checked.question.objective.constants, asked.objective.constants)
    assert checked.question.groups.tolist() == [0, 0, 1]
    assert main(["check", str(proof), "--network", NET, "--data", "digits", "--index", "4"]) == 1
    assert main(["check", str(proof), "--network", NET, "--property", str(table)]) == 0
    assert f"the property in {table}" in capsys.readouterr().out.replace("\n", "")
    table.write_text(table.read_text().replace("-2", "-2.5"))
    assert main(["check", str(proof), "--network", NET, "--property", str(table)]) == 1
    assert "REJECTED: the proof is about another question than the property in" in capsys.readouterr().out


def test_radius_of_a_property(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--property", str(table), "--rungs", "pgd,dual", "--solver", "highs"]
    assert main(["radius", *ASKED, *options]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "property eight.toml" in shown
    assert "the nearest point found breaks group" in shown
    table.write_text(f"rows = {[[0] * 10]}\nconstants = [1]\n")
    assert main(["radius", *ASKED, *options, "--largest", "0.1"]) == 0
    assert "no unsafe point found; none within" in " ".join(capsys.readouterr().out.split())


def test_radii_of_a_property_are_those_of_closest(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Image by image, whatever the labels; and they are stored apart from those of the classes."""
    out = tmp_path / "radii"
    many = ["radius", NET, "--data", "digits", "--count", "4", "--rungs", "pgd,dual", "--out", str(out)]
    asked_of_all = [*many, "--property", str(table), "--json"]
    assert main(asked_of_all) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["property"].endswith("eight.toml")
    network, data, asked = Network.load(NET), load_dataset("digits"), load_property(table)
    for sample in range(4):
        alone = closest(network, data.features[sample], asked, domain=(0, 1), rungs=("pgd", "dual"))
        lines = [line for line in told["images"] if line["sample"] == sample]
        assert [line["certified"] for line in lines] == [one.certified for one in alone.by_rung]
        assert [line["refuted"] for line in lines] == [one.refuted for one in alone.by_rung]
    assert {line["refuted"] == 0 for line in told["images"]} == {True, False}
    assert main([*many, "--json"]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert plain["property"] is None
    assert [line["refuted"] for line in plain["images"]] != [line["refuted"] for line in told["images"]]
    assert main(asked_of_all) == 0
    assert json.loads(capsys.readouterr().out)["images"] == told["images"]  # seconds too: nothing was redone


def test_an_image_of_ones_own_needs_no_label(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "x.npy", load_dataset("digits").images[3])
    asked = ["certify", NET, "--image", str(tmp_path / "x.npy"), "--eps", "0.01", "--rungs", "dual"]
    assert main(asked) == 2
    assert "--image needs --label" in capsys.readouterr().err
    assert main([*asked, "--property", str(table)]) == 0
    assert "property eight.toml" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--index", "3", "--target", "1"], "--target asks about classes, --property about rows of its own"),
        (["--index", "3", "--label", "8"], "--label asks about classes, --property about rows of its own"),
    ],
)
def test_options_that_do_not_go_together(
    table: Path, more: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["certify", NET, "--data", "digits", "--eps", "0.1", "--property", str(table), *more]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rows = [[1, 2, 3]]", "the property is about 3 outputs, the network has 10"),
        ("rows = [[1, 2", "is not valid TOML"),
        ("rows = [[1, inf]]", "eight.toml: line 1: rows[0][1]: every entry must be finite, got inf"),
        ("groups = [0]", "eight.toml: key 'rows' is missing"),
    ],
)
def test_files_that_are_none_are_one_line(
    table: Path, text: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    table.write_text(text)
    for command in (["certify", *ASKED, "--eps", "0.1"], ["radius", *ASKED]):
        assert main([*command, "--property", str(table)]) == 2
        assert message in " ".join(capsys.readouterr().err.split())


def test_a_property_of_many_images_is_asked_of_each(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever their labels: the verdicts are those of `certify` with the same property, image by image."""
    out = tmp_path / "rows.csv"
    many = ["certify", NET, "--data", "digits", "--count", "6", "--eps", "0.02", "--property", str(table)]
    assert main([*many, "--out", str(out)]) == 0
    assert "property eight.toml" in " ".join(capsys.readouterr().out.split())
    rows = pd.read_csv(out)
    network, data, asked = Network.load(NET), load_dataset("digits"), load_property(table)
    for sample, verdict in zip(rows["sample"], rows["verdict"], strict=True):
        alone = certify(network, LinfBall(data.features[sample], 0.02, (0, 1)), asked)
        assert verdict == alone.verdict
    assert set(rows["verdict"]) == {"YES", "NO"}
    assert main([*many, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["property"].endswith("eight.toml")


def test_a_property_of_many_images_that_does_not_fit_is_told_before_any_work(
    table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    many = ["zoo:digits-standard", "--data", "digits", "--count", "3", "--property", str(table)]
    table.write_text("rows = [[1, -1]]")
    assert main(["certify", *many, "--eps", "0.02"]) == 2
    assert "the property is about 2 outputs, the network has 10" in " ".join(capsys.readouterr().err.split())
    assert main(["radius", *many]) == 2
    assert "the property is about 2 outputs, the network has 10" in " ".join(capsys.readouterr().err.split())


def test_answers_about_a_property_have_keys_of_their_own() -> None:
    rows = np.eye(10)[[0]]
    plain, one, other = (
        BatchPlan(0.1),
        BatchPlan(0.1, question=Property.of(rows)),
        BatchPlan(0.1, question=Property.of(-rows)),
    )
    assert "question" not in plain.record
    assert len({str(plan.record) for plan in (plain, one, other)}) == 3
    json.dumps(one.record)


def test_distances_of_a_property_have_keys_of_their_own() -> None:
    plans = (DistancePlan(), DistancePlan(question=Property.of([[1.0]])), DistancePlan(question=Property.of([[2.0]])))
    assert "question" not in plans[0].asked
    assert len({str(plan.asked) for plan in plans}) == 3
    json.dumps(plans[1].asked["question"])


def test_a_property_asks_for_no_labels_that_the_network_knows() -> None:
    """Three outputs, labels up to 9; and what is no property is refused."""
    rng, data = np.random.default_rng(0), load_dataset("digits")
    network = Network([Dense(rng.normal(size=(3, 64)) / 8)])
    asked = Property.of(np.array([[1.0, -1.0, 0.0]]))
    rows = certify_samples(network, data, range(8), BatchPlan(0.01, question=asked))
    for sample, verdict in zip(rows["sample"], rows["verdict"], strict=True):
        assert verdict == certify(network, LinfBall(data.features[sample], 0.01, (0, 1)), asked).verdict
    check_distances(network, data, range(8), DistancePlan(question=asked))
    with pytest.raises(ValueError, match="label 5, the network has 3"):
        certify_samples(network, data, range(8), BatchPlan(0.01))
    with pytest.raises(ValueError, match="label 5, the network has 3"):
        check_distances(network, data, range(8), DistancePlan())
    with pytest.raises(ValueError, match="question must be a Property"):
        check_distances(network, data, range(2), DistancePlan(question=3))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="question must be a Property"):
        certify_samples(network, data, range(2), BatchPlan(0.01, question=3))  # type: ignore[arg-type]
