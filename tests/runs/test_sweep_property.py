"""Sweeps of a property, or of some targets: what they compute, the keys of their rows, and what is refused."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import random_dense_network
from sweep_specimens import VOLATILE, make_spec, run

from toolkit.data.datasets import load_dataset
from toolkit.networks.network import Network
from toolkit.problems.input_sets import LinfBall
from toolkit.problems.property_table import PropertyTable
from toolkit.problems.settings import Settings
from toolkit.report.html import write_html
from toolkit.report.order import check_order
from toolkit.report.tables import gap_table
from toolkit.report.write import write_report
from toolkit.rungs import get_rung
from toolkit.runs.sweep import compute
from toolkit.runs.sweep.plan import make_plan
from toolkit.runs.sweep.run import run_sweep
from toolkit.runs.sweep.spec import SweepSpec, load_spec
from toolkit.runs.sweep.tasks import KEY_VERSION, relevant_settings, row_keys
from toolkit.verify.ladder import certify

RUNGS = ["dual", "lp", "exact", "pgd"]
TABLE: dict[str, Any] = {
    "rows": [[1, -1, 0.5], [0.25, 1, -1], [-1, 0, 2], [0, 1, 1], [1, 1, 0]],
    "constants": [0.5, 0, 1, -0.25, 3],
    "groups": [0, 0, 0, 1, 2],
}


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of three outputs: most labels of digits are none of its classes."""
    path = tmp_path_factory.mktemp("three") / "three.npz"
    random_dense_network(np.random.default_rng(3), [64, 7, 6, 3], "three").save(path)
    return path


def property_spec(network: Path, **changes: Any) -> SweepSpec:
    content = {"networks": [{"source": str(network), "dataset": "digits"}], "rungs": RUNGS, "property": TABLE}
    return make_spec(network.parent, **(content | {"samples": [0, 1, 2], "eps": [0.05]} | changes))


def keys(spec: SweepSpec) -> set[str]:
    plan = make_plan(spec)
    return set(plan.keys(plan.work(Path("out"))))


@pytest.fixture(scope="module")
def swept(three: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    out = tmp_path_factory.mktemp("swept")
    return out, run(property_spec(three), out)


def test_rows_are_of_groups_and_hold_what_certify_says(three: Path, swept: tuple[Path, pd.DataFrame]) -> None:
    _, rows = swept
    assert set(rows["status"]) <= {"computed", "optimal"}
    check_order(rows)
    network, asked, data = Network.load(three), PropertyTable(**TABLE).as_property(), load_dataset("digits")
    verdicts = gap_table(rows)
    assert len(verdicts)
    for sample in range(3):
        own = rows[rows["sample"] == sample]
        assert set(own["label"]) == {int(data.labels[sample])}
        numbers = own.pivot(index="target", columns="rung", values=["lower", "upper", "clean_margin"])
        assert numbers.index.tolist() == [0, 1, 2]
        center = data.features[sample].astype(np.float64)
        values = np.array(TABLE["rows"]) @ network.forward(center) + TABLE["constants"]
        clean = [values[:3].max(), values[3], values[4]]
        np.testing.assert_allclose(numbers["clean_margin"]["lp"], clean, atol=1e-12)
        lower, upper = numbers["lower"], numbers["upper"]
        for weak, strong in (("dual", "lp"), ("lp", "exact")):
            assert (lower[weak] <= lower[strong] + 1e-6).all()
        assert (lower["exact"] <= upper["pgd"] + 1e-6).all()
        answer = certify(network, LinfBall(center, 0.05, (0, 1)), asked, RUNGS, settings=Settings(solver="highs"))
        assert answer.label is None
        for bound, group in zip(answer.margins, range(3), strict=True):
            assert bound.lower <= upper["exact"][group] + 1e-6
            assert lower["exact"][group] <= bound.upper + 1e-6
        safe = own.groupby("target")["certified_lower"].max().gt(0).all()
        assert (str(answer.verdict) == "YES") == bool(safe)


def test_sampled_points_are_above_every_lower_bound(three: Path, swept: tuple[Path, pd.DataFrame]) -> None:
    _, rows = swept
    network, data, rng = Network.load(three), load_dataset("digits"), np.random.default_rng(1)
    for sample, own in rows[rows["rung"] == "exact"].groupby("sample"):
        center = data.features[sample].astype(np.float64)
        points = np.clip(center + rng.choice([-0.05, 0.05], (2000, center.size)), 0, 1)
        values = network.forward(points) @ np.array(TABLE["rows"]).T + TABLE["constants"]
        least = [values[:, :3].max(axis=1).min(), values[:, 3].min(), values[:, 4].min()]
        assert (own["lower"].to_numpy() <= np.array(least) + 1e-9).all()


def test_a_second_run_computes_nothing_and_reports_work(
    three: Path, swept: tuple[Path, pd.DataFrame], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, rows = swept
    monkeypatch.setattr(compute, "row_batches", None)  # whatever was computed would raise
    again = run(property_spec(three), out)
    pd.testing.assert_frame_equal(again, rows)  # seconds too
    assert len(write_report(rows, tmp_path)) > 3
    runs = json.loads((out / "provenance.json").read_text())["runs"]
    assert runs[0]["spec"]["property"]["groups"] == TABLE["groups"]
    write_html(rows, tmp_path / "page.html", runs)
    page = (tmp_path / "page.html").read_text()
    assert re.search(r"<th[^>]*>group</th>", page)
    assert not re.search(r"<th[^>]*>class t</th>", page)
    assert "--property PROPERTY.toml" in page


def test_cached_bounds_are_of_the_network_and_serve_every_property(three: Path, tmp_path: Path) -> None:
    """Files are the label sweep's; seconds of l,u are those of the network's and those of the groups' ReLUs."""
    first = run(property_spec(three, cache_bounds=True, samples=[0]), tmp_path)
    (file,) = (tmp_path / "bounds").iterdir()
    stamp = file.stat().st_mtime_ns
    with np.load(file) as content:
        cached = json.loads(str(content["header"]))["seconds"]
    assert (first["bounds_seconds"] > cached).all()
    other = TABLE | {"constants": [0.5, 0, 1, -0.25, 4]}
    second = run(property_spec(three, cache_bounds=True, samples=[0], property=other), tmp_path)
    assert file.stat().st_mtime_ns == stamp
    assert (second["bounds_seconds"] > cached).all()
    assert set(second["key"]).isdisjoint(first["key"])
    plain = run(property_spec(three, samples=[0]), tmp_path / "plain")
    pd.testing.assert_frame_equal(first.drop(columns=VOLATILE), plain.drop(columns=VOLATILE))
    before, after = (rows[(rows["target"] == 2) & (rows["rung"] != "pgd")]["lower"] for rows in (first, second))
    np.testing.assert_allclose(after.to_numpy() - before.to_numpy(), 1.0, atol=1e-6)


def test_relus_of_groups_are_bounded_by_the_sweeps_chain(three: Path, tmp_path: Path) -> None:
    """Weaker chains give fewer stable ReLUs; rows of both chains agree on m*."""
    chains = [["interval"], ["interval", "dual", "lp"]]
    rows = run(property_spec(three, layer_bounds=chains, samples=[1], rungs=["lp", "exact"]), tmp_path)
    check_order(rows)
    lp = rows[rows["rung"] == "lp"].pivot(index="target", columns="layer_bounds", values="lower")
    assert (lp["interval"] <= lp["interval+dual+lp"] + 1e-6).all()
    unstable = rows.groupby("layer_bounds")["unstable"].first()
    assert unstable["interval+dual+lp"] <= unstable["interval"]
    total = rows[["unstable", "active", "inactive"]].sum(axis=1)
    assert set(total) == {7 + 6 + 2}  # three rows are the largest of two differences, one after the other


def test_a_network_read_without_its_softmax_is_asked_about_the_order_of_outputs(three: Path, tmp_path: Path) -> None:
    """Groups of several rows too; what asks for more than the order is refused before any work."""
    whole = Network.load(three)
    Network(whole.stages, "cut", {"dropped": "a final Softmax"}).save(tmp_path / "cut.npz")
    ranking = {"rows": [[1, -1, 0], [0, 2, -2], [-1, 0, 1]], "groups": [0, 0, 1]}
    changes: dict[str, Any] = {"samples": [0], "rungs": ["lp", "exact"], "property": ranking}
    rows, plain = (run(property_spec(at, **changes), tmp_path / at.stem) for at in (tmp_path / "cut.npz", three))
    assert set(rows["status"]) == {"optimal"}
    np.testing.assert_array_equal(rows["lower"], plain["lower"])
    said = "cut.npz': the network was read without a final Softmax: .* row 2 is neither"
    with pytest.raises(ValueError, match=said):
        make_plan(property_spec(tmp_path / "cut.npz", property=ranking | {"constants": [0, 0, 1]}))


@pytest.mark.parametrize(
    "change",
    [
        {"constants": [0.5, 0, 1, -0.25, 3.5]},
        {"groups": [0, 0, 1, 1, 2]},
        {"groups": [0, 0, 0, 1, 1]},
        {"rows": [[1, -1, 0.5], [0.25, 1, -1], [-1, 0, 2], [0, 1, 1], [1, 1, 1e-300]]},
        {"constants": None},
    ],
)
def test_another_property_has_other_keys(three: Path, change: dict[str, Any]) -> None:
    changed = {key: value for key, value in (TABLE | change).items() if value is not None}
    assert keys(property_spec(three)).isdisjoint(keys(property_spec(three, property=changed)))


def test_the_same_property_written_otherwise_has_the_same_keys(three: Path, tmp_path: Path) -> None:
    rows = [[1, 0, -1], [0, 2, 0]]
    plain = keys(property_spec(three, property={"rows": rows}))
    floats = [[1.0, -0.0, -1.0], [0.0, 2.0, 0.0]]
    assert plain == keys(property_spec(three, property={"rows": floats, "constants": [0, -0.0], "groups": [0, 1]}))
    text = 'name="x"\nsamples=[0,1,2]\neps=[0.05]\ndomain=[0,1]\nsolver="highs"\nrungs=["dual","lp","exact","pgd"]\n'
    text += "property = { rows = [[1, 0, -1], [0, 2, 0]] }\n"
    (tmp_path / "spec.toml").write_text(f'{text}[[networks]]\nsource="{three}"\ndataset="digits"\n')
    assert plain == keys(load_spec(tmp_path / "spec.toml"))


def test_keys_of_label_sweeps_are_what_they_were(tmp_path: Path) -> None:
    """Recomputed from a row's own columns: SHA-256 of question, names and both lists of rungs, then the target."""
    spec = make_spec(
        tmp_path, networks=[{"source": "zoo:digits-standard", "dataset": "digits"}], samples=[3], rungs=["dual", "lp"]
    )
    rows = run(spec, tmp_path / "out")
    center = load_dataset("digits").features[3].astype(np.float64)
    for row in rows.to_dict("records"):
        asked = {
            "version": 2,
            "network": row["network_digest"],
            "center": hashlib.sha256(center.tobytes()).hexdigest(),
            "norm": row["norm"],
            "eps": row["eps"].hex(),
            "domain": [0.0, 1.0],
            "name": row["network"],
            "dataset": row["dataset"],
            "sample": row["sample"],
            "label": row["label"],
        }
        named = [
            [[one, get_rung(one).version, relevant_settings(get_rung(one), spec.settings())] for one in names]
            for names in (row["layer_bounds"].split("+"), [row["rung"]])
        ]
        content = json.dumps(asked, sort_keys=True) + json.dumps(named, sort_keys=True) + str(row["target"])
        assert row["key"] == hashlib.sha256(content.encode()).hexdigest()
    assert KEY_VERSION == 2


def test_targets_are_the_rows_of_those_classes(three: Path, tmp_path: Path) -> None:
    zoo = {"networks": [{"source": "zoo:digits-standard", "dataset": "digits"}], "rungs": ["dual", "lp"], "eps": [0.03]}
    labels = load_dataset("digits").labels
    chosen = [int(labels[0]), int(labels[1])]
    everything = run(make_spec(three.parent, samples=[0, 1], **zoo), tmp_path / "all")
    some = run(make_spec(three.parent, samples=[0, 1], targets=chosen, **zoo), tmp_path / "some")
    expected = everything[everything["target"].isin(chosen)].reset_index(drop=True)
    numbers = ["sample", "label", "target", "eps", "rung"]
    pd.testing.assert_frame_equal(some[numbers], expected[numbers])
    np.testing.assert_allclose(some["lower"], expected["lower"], rtol=1e-6, atol=1e-6)
    assert set(some["key"]).isdisjoint(everything["key"])
    plan = make_plan(make_spec(three.parent, samples=[0, 1], targets=[chosen[0]], **zoo))
    assert [network.samples for network in plan.networks] == [(1,)]  # nothing to ask of the other
    assert all(row_keys(task) for task in plan.tasks(plan.work(tmp_path)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"property": {"rows": [[1, 2]]}}, "network '.*three.npz': the property is about 2 outputs, the network has 3"),
        ({"property": {"rows": [[1, 2, 3], [1, 2]]}}, r"^property: rows must be of one length, got rows\[0\] of 3 and"),
        ({"property": {"rows": [[1, 2, float("inf")]]}}, r"^property.rows\[0\]\[2\]: every entry must be finite, got"),
        ({"property": {"rows": []}}, r"^property.rows: .*at least 1 item"),
        ({"property": {"rows": [[]]}}, r"^property.rows\[0\]: .*at least 1 item"),
        ({"property": {"rows": [[1, 2, True]]}}, "rows must not be true or false"),
        ({"property": {"rows": [[1, 2, "3"]]}}, r"^property.rows\[0\]\[2\]: every entry must be one number, got '3'"),
        ({"property": {"rows": [[1, 2, [3]]]}}, r"^property.rows\[0\]\[2\]: every entry must be one number"),
        ({"property": {"rows": [[2**53 + 1, 2, 3]]}}, r"^property.rows\[0\]\[0\]: every entry must be a double, got 9"),
        ({"property": {"row": [[1, 2, 3]]}}, r"^unknown key 'property.row'; allowed: rows, constants, groups"),
        ({"property": TABLE | {"groups": [0, 0, 2, 2, 2]}}, "^property: groups must ascend from 0 without gaps"),
        ({"property": TABLE | {"groups": [1, 1, 1, 1, 1]}}, "^property: groups must ascend from 0 without gaps"),
        ({"property": TABLE | {"groups": [0, 0]}}, "^property: groups must be one number for each of 5 rows, got 2"),
        ({"property": TABLE | {"constants": [1]}}, "^property: constants must be one number for each of 5 rows, got 1"),
        ({"targets": [1]}, "give one of targets, property"),
        ({"property": None, "targets": []}, "^targets: .*at least 1 item"),
        ({"property": None, "targets": [1, 1]}, "must not repeat an entry, got 1 twice"),
        ({"property": None, "targets": [3]}, r"three.npz': targets must be in 0 … 2, its classes, got 3"),
    ],
)
def test_what_does_not_fit_is_refused_before_any_work(
    three: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        run_sweep(property_spec(three, **changes), tmp_path / "out", progress=False)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_samples_of_the_only_target_leave_nothing_to_ask(three: Path) -> None:
    label = int(load_dataset("digits").labels[0])
    zoo = {"networks": [{"source": "zoo:digits-standard", "dataset": "digits"}]}
    with pytest.raises(ValueError, match=rf"targets \[{label}\] leave nothing to ask"):
        make_plan(make_spec(three.parent, samples=[0], targets=[label], **zoo))
