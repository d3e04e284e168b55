"""Spec errors are one line, name the offender and what is allowed, and come before any work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import random_dense_network

from toolkit.networks.network import Network
from toolkit.runs.sweep.plan import make_plan
from toolkit.runs.sweep.run import run_sweep
from toolkit.runs.sweep.spec import SweepSpec, load_spec, parse_spec

VALID: dict[str, Any] = {
    "name": "t",
    "samples": 2,
    "eps": [0.1],
    "rungs": ["dual"],
    "networks": [{"source": "zoo:digits-standard", "dataset": "digits"}],
}


def changed(key: str, value: Any) -> dict[str, Any]:
    """VALID with one key set; networks.KEY reaches into the first network."""
    if key.startswith("networks."):
        return VALID | {"networks": [VALID["networks"][0] | {key.removeprefix("networks."): value}]}
    return VALID | {key: value}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("epz", [0.1], r"^unknown key 'epz'; allowed: name, networks, samples, eps, rungs"),
        ("networks.sorce", "x", r"^unknown key 'networks\[0\].sorce'; allowed: source, dataset, eps"),
        ("rungs", ["dual", "lpp"], r"^rungs: unknown rung 'lpp'; allowed: .*dual, "),
        ("rungs", ["dual", "dual"], "must not repeat an entry, got 'dual' twice"),
        ("rungs", [], "^rungs: .*at least 1 item"),
        ("layer_bounds", [["interval", "wk"]], "unknown rung 'wk'; allowed: .*dual, "),
        ("layer_bounds", [[]], "at least one rung, got an empty one"),
        ("solver", "cplex", "unknown solver 'cplex'; allowed: auto, highs"),
        ("eps", [0.1, -0.1], "^eps: eps must be finite and ≥ 0, got -0.1"),
        ("eps", [float("nan")], "^eps: eps must be finite and ≥ 0, got nan"),
        ("eps", [0.1, 0.1], "must not repeat an entry, got 0.1 twice"),
        ("eps", [], "at least one radius"),
        ("eps", "0.1", "^eps: input should be a valid tuple, got '0.1'"),
        ("networks.eps", [-1.0], r"^networks\[0\].eps: eps must be finite and ≥ 0, got -1.0"),
        ("networks.dataset", "cifar", "unknown data set 'cifar'; allowed: digits"),
        ("networks.source", "zoo:nothing", "unknown zoo network 'zoo:nothing'; allowed: .*zoo:digits-standard"),
        ("domain", [1, 0], r"domain must be \[low, high\] with low < high, got \[1.0, 0.0\]"),
        ("samples", 0, "^samples: "),
        ("samples", [1, 1], "must not repeat an entry, got 1 twice"),
        ("samples", [-1], r"^samples\[0\]: .*greater than or equal to 0, got -1"),
        ("time_limit", 0, "^time_limit: .*greater than 0, got 0"),
        ("mip_gap", 1.0, "^mip_gap: .*less than 1, got 1.0"),
        ("threads", 0, "^threads: .*greater than or equal to 1, got 0"),
        ("seed", -1, "^seed: "),
        ("seed", 3 * 10**9, "seed must be in 0 … 2000000000, got 3000000000"),
        ("threads", 5000, "threads must be in 1 … 1024, got 5000"),
        ("attack_steps", 10**30, "attack_steps must be in 1 … 1000000000, got 1000000000000000000000000000000"),
    ],
)
def test_wrong_keys_and_values(key: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        parse_spec(changed(key, value))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["name", "samples", "eps", "rungs", "networks"])
def test_missing_key_is_named(key: str) -> None:
    with pytest.raises(ValueError, match=f"^key '{key}' is missing$"):
        parse_spec({name: value for name, value in VALID.items() if name != key})


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("samples", [3, 500], r"samples must be in 0 … 499, the test images of digits, got 500"),
        ("samples", 501, "samples must be ≤ 500, the test images of digits, got 501"),
        (
            "networks.source",
            "zoo:mnist5k-standard",
            r"digits has images of shape \(1, 8, 8\), the network takes \(1, 28, 28\)",
        ),
        ("networks.source", "nowhere.npz", "no network file at nowhere.npz"),
        ("domain", [0, 0.5], r"center must lie in the domain \[0.0, 0.5\]"),
        ("networks", VALID["networks"] + [VALID["networks"][0] | {"eps": [0.2]}], "must not repeat an entry"),
    ],
)
def test_what_needs_data_is_checked_before_any_work(tmp_path: Path, key: str, value: Any, message: str) -> None:
    out = tmp_path / "out"
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        run_sweep(parse_spec(changed(key, value)), out, workers=1, progress=False)
    assert "\n" not in str(caught.value)
    assert not out.exists()


def test_label_beyond_the_network_is_named(tmp_path: Path, rng: Any) -> None:
    random_dense_network(rng, [64, 4, 3], "three").save(tmp_path / "three.npz")
    spec = parse_spec(changed("networks.source", str(tmp_path / "three.npz")) | {"samples": 20})
    with pytest.raises(ValueError, match=r"sample \d+ of digits has label [3-9], network .*three.npz' has 3 classes"):
        make_plan(spec)


def test_two_networks_of_one_name_are_refused_until_renamed(tmp_path: Path) -> None:
    network = Network.load("zoo:digits-standard")
    network.save(tmp_path / "copy.npz")
    first, second = VALID["networks"][0], {"source": str(tmp_path / "copy.npz"), "dataset": "digits"}
    with pytest.raises(ValueError, match="two networks are called 'digits-standard' on digits; give one of them"):
        make_plan(parse_spec(VALID | {"networks": [first, second]}))
    plan = make_plan(parse_spec(VALID | {"networks": [first, second | {"name": "copy"}]}))
    assert [network.ref.name for network in plan.networks] == ["digits-standard", "copy"]


def test_toml_errors_name_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_text('name = "x"\nsamples = 5\neps = [0.1\nrungs = 3\n')
    with pytest.raises(ValueError, match=r"broken.toml is not valid TOML: .*line 4") as caught:
        load_spec(path)
    assert "\n" not in str(caught.value)
    path.write_text('name = "x"\nepz = 1\n')
    with pytest.raises(ValueError, match=r"broken.toml: "):
        load_spec(path)
    with pytest.raises(FileNotFoundError, match=r"no spec file at .*missing.toml"):
        load_spec(tmp_path / "missing.toml")


def test_network_files_are_looked_up_beside_the_spec(tmp_path: Path, rng: Any) -> None:
    random_dense_network(rng, [64, 4, 10], "near").save(tmp_path / "near.npz")
    text = 'name="x"\nsamples=1\neps=[0.1]\nrungs=["dual"]\n[[networks]]\nsource="near.npz"\ndataset="digits"\n'
    (tmp_path / "spec.toml").write_text(text)
    assert make_plan(load_spec(tmp_path / "spec.toml")).networks[0].ref.name == "near"


def test_spec_cannot_be_changed() -> None:
    spec = SweepSpec.model_validate(VALID)
    with pytest.raises(ValueError, match="frozen"):
        spec.seed = 3  # type: ignore[misc]


def test_more_samples_keep_the_earlier_ones() -> None:
    few, many = (make_plan(parse_spec(VALID | {"samples": count})).networks[0].samples for count in (4, 9))
    assert many[:4] == few
    assert len(set(many)) == 9
    other = make_plan(parse_spec(VALID | {"samples": 9, "seed": 1})).networks[0].samples
    assert other != many


def test_demo_spec_is_valid() -> None:
    spec = load_spec(Path(__file__).parents[2] / "experiments" / "demo.toml")
    assert len(spec.networks) >= 2
    assert isinstance(spec.samples, int)
    assert spec.samples >= 5
    assert all(len(network.eps or spec.eps) >= 5 for network in spec.networks)
    assert {"dual", "lp", "exact"} <= set(spec.rungs)
