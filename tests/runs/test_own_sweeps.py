"""Sweeps, tables and training of one's own: objects and files in place of names, keyed by what they hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import random_dense_network
from sweep_specimens import VOLATILE

from toolkit import Dataset, Network, SweepSpec, run_sweep
from toolkit.runs.batch import BatchPlan, certify_samples
from toolkit.runs.distances import DistancePlan, measure_distances
from toolkit.runs.provenance import read_provenance
from toolkit.runs.sweep.spec import load_spec, parse_spec
from toolkit.runs.tables import load_entry, run_table
from toolkit.training.spec import load_train_spec


@pytest.fixture
def own(rng: np.random.Generator) -> tuple[Network, np.ndarray, np.ndarray]:
    """A network of four inputs, and six images that it classifies."""
    network = random_dense_network(rng, [4, 6, 3], "own")
    images = rng.uniform(size=(6, 1, 2, 2))
    return network, images, network.predict(images.reshape(6, 4))


def swept(spec: SweepSpec, out: Path, **options: Any) -> pd.DataFrame:
    return run_sweep(spec, out, **({"workers": 1, "progress": False} | options))


def spec_of(network: Any, data: Any, **changes: Any) -> SweepSpec:
    content = {
        "name": "own", "samples": 2, "eps": ["1/100", 0.02], "rungs": ["dual", "lp"], "domain": [0, 1],
        "networks": [{"source": network, "dataset": data}],
    }  # fmt: skip
    return parse_spec(content | changes)


def test_files_beside_a_spec_are_found_where_the_spec_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "spec.toml").write_text(
        'name = "own"\nsamples = 1\neps = [0.1]\nrungs = ["dual"]\n'
        '[[networks]]\nsource = "net.npz"\ndataset = "mine.npz"\n'
    )
    (network,) = load_spec("~/spec.toml").networks
    assert [network.source, network.dataset] == [str(tmp_path.resolve() / name) for name in ("net.npz", "mine.npz")]


def test_objects_and_files_give_the_same_rows(own: Any, tmp_path: Path) -> None:
    network, images, labels = own
    network.save(tmp_path / "net.npz")
    np.savez(tmp_path / "mine.npz", images=images, labels=labels)
    (tmp_path / "spec.toml").write_text(
        'name = "own"\nsamples = 2\neps = ["1/100", 0.02]\nrungs = ["dual", "lp"]\ndomain = [0, 1]\n'
        '[[networks]]\nsource = "net.npz"\ndataset = "mine.npz"\n'
    )
    by_file = swept(load_spec(tmp_path / "spec.toml"), tmp_path / "files")
    data = Dataset.from_arrays(images, labels, name="mine.npz")
    by_object = swept(spec_of(network, data), tmp_path / "objects")
    pd.testing.assert_frame_equal(by_file.drop(columns=VOLATILE), by_object.drop(columns=VOLATILE))
    assert set(by_object["status"]) <= {"computed", "optimal"}
    assert set(by_object["eps"]) == {0.01, 0.02}
    for folder in ("files", "objects"):
        (run,) = read_provenance(tmp_path / folder)
        assert str(tmp_path) not in str(run)
        assert run["spec"]["networks"][0]["dataset"] == "mine.npz"


def test_paths_are_texts_of_them(own: Any, tmp_path: Path) -> None:
    network, images, labels = own
    network.save(tmp_path / "net.npz")
    np.savez(tmp_path / "mine.npz", images=images, labels=labels)
    (found,) = spec_of(tmp_path / "net.npz", tmp_path / "mine.npz").networks
    assert (found.source, found.dataset) == (str(tmp_path / "net.npz"), str(tmp_path / "mine.npz"))


def test_workers_take_objects_and_other_content_is_computed_anew(own: Any, tmp_path: Path) -> None:
    network, images, labels = own
    data = Dataset.from_arrays(images, labels)
    first = swept(spec_of(network, data), tmp_path / "out", workers=2)
    again = swept(spec_of(network, Dataset.from_arrays(images.copy(), labels)), tmp_path / "out", workers=1)
    pd.testing.assert_frame_equal(first, again)
    assert len(read_provenance(tmp_path / "out")) == 1  # nothing was missing
    other = swept(spec_of(network, Dataset.from_arrays(1 - images, labels)), tmp_path / "out", workers=1)
    assert set(first["key"]).isdisjoint(other["key"])
    changed = random_dense_network(np.random.default_rng(7), [4, 6, 3], "own")
    assert set(swept(spec_of(changed, data), tmp_path / "out")["key"]).isdisjoint(first["key"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"eps": ["8/0"]}, r"eps\[0\]: .* must be a number or a fraction such as 8/255, got '8/0'"),
        ({"eps": ["-1/2"]}, "eps must be finite and ≥ 0, got -0.5"),
        (
            {"networks": [{"source": 3, "dataset": "digits"}]},
            r"networks\[0\].source: input should be a valid string, got 3",
        ),
        ({"networks": [{"source": "a.npz", "dataset": [1]}]}, r"networks\[0\].dataset: input should be a valid string"),
        ({"networks": [{"source": "a.npz", "dataset": "photos"}]}, "unknown data set 'photos'; allowed: digits"),
    ],
)
def test_what_is_neither_is_named(change: dict[str, Any], message: str, own: Any) -> None:
    with pytest.raises(ValueError, match=message):
        spec_of(own[0], "digits", **change)


def test_data_that_do_not_fit_are_named_before_any_work(own: Any, tmp_path: Path) -> None:
    network, images, labels = own
    for data, message in (
        (
            Dataset.from_arrays(images[:, :, :1], labels),
            r"network 'own': own has images of shape \(.*\), the network takes \(4,\)",
        ),
        (Dataset.from_arrays(images, labels + 5), r"of own has label \d, network 'own' has 3 classes"),
        (Dataset.from_arrays(images - 2, labels, domain=None), r"center must lie in the domain \[0.0, 1.0\]"),
    ):
        with pytest.raises(ValueError, match=message):
            swept(spec_of(network, data), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match=r"only .pth and .pt files take an architecture"):
        swept(spec_of(network, "digits", networks=[{"source": network, "dataset": "digits", "architecture": "mlp"}]),
              tmp_path / "out")  # fmt: skip


def test_batches_in_other_units_with_a_radius_per_coordinate(own: Any) -> None:
    """Scaled images, radii and domain, and a network that scales back: the same verdicts."""
    network, images, labels = own
    scale = np.array([255.0, 3.0, 1.0, 0.5])
    weights = [(np.asarray(m.weight), np.asarray(m.bias)) for m in network.layers]
    weights[0] = (weights[0][0] / scale, weights[0][1])
    wide = Network.from_arrays(weights, "out_in", "wide")
    data = Dataset.from_arrays(images.reshape(6, 4) * scale, labels, domain=(np.zeros(4), scale))
    for eps in (0.01, 0.1, 0.5):
        plain = certify_samples(
            network, Dataset.from_arrays(images, labels), range(6), BatchPlan(eps, ladder=("dual",))
        )
        own_units = BatchPlan(eps * scale, data.domain, ladder=("dual",))
        scaled = certify_samples(wide, data, range(6), own_units)
        np.testing.assert_allclose(plain["lower"], scaled["lower"], rtol=1e-9, atol=1e-9)
        assert plain["verdict"].tolist() == scaled["verdict"].tolist()


def test_stored_distances_are_of_the_content(own: Any, tmp_path: Path) -> None:
    network, images, _ = own
    plan = DistancePlan(rungs=("pgd", "dual"), tolerance=0.1)
    for pixels in (images, images[::-1].copy()):
        data = Dataset.from_arrays(pixels, network.predict(pixels.reshape(6, 4)))
        found = measure_distances(network, data, [0], plan, tmp_path, "run")
        fresh = measure_distances(network, data, [0], plan, tmp_path / str(pixels is images), "run")
        assert found["refuted"].tolist() == fresh["refuted"].tolist()


def test_tables_take_own_files_and_fractions(own: Any, tmp_path: Path) -> None:
    network, images, labels = own
    network.save(tmp_path / "net.npz")
    np.savez(tmp_path / "mine.npz", images=images, labels=labels)
    (tmp_path / "table.toml").write_text(
        f'kind = "errors"\ntitle = "t"\nsource = "s"\n[[stages]]\nname = "dual"\nladder = ["dual"]\n[[rows]]\n'
        f'name = "r"\nnetwork = "{(tmp_path / "net.npz").as_posix()}"\n'
        f'dataset = "{(tmp_path / "mine.npz").as_posix()}"\neps = "1/1000"\ndomain = [0, 1]\n'
    )
    entry = load_entry(tmp_path / "table.toml")
    table = run_table(entry, tmp_path / "out", "run", None, 1).table
    assert table["images"].tolist() == [6, 6]
    np.savez(tmp_path / "mine.npz", images=images[:4], labels=(labels[:4] + 1) % 3)
    assert run_table(entry, tmp_path / "out", "run", None, 1).table["error"].tolist() == [100.0, 100.0]


def test_training_takes_a_folder_with_two_splits(own: Any, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="needs the extra train")
    from toolkit.training.loop import train_spec

    _, images, labels = own
    (tmp_path / "mine").mkdir()
    for split in ("train", "test"):
        np.savez(tmp_path / "mine" / f"{split}.npz", images=images, labels=labels)
    (tmp_path / "t.toml").write_text(
        '[[networks]]\nname = "a"\ndataset = "./mine"\nhidden = [4]\nloss = "dual"\neps = "1/100"\nepochs = 1\n'
        "domain = [0, 1]\nevaluate = 3\nmonitor = 3\n"
    )
    assert load_train_spec(tmp_path / "t.toml").networks[0].eps == 0.01
    (written,) = train_spec(tmp_path / "t.toml", tmp_path / "out", progress=False)
    assert Network.load(written).metadata["spec"]["dataset"] == "./mine"
    assert torch is not None
    (tmp_path / "u.toml").write_text('[[networks]]\nname = "a"\ndataset = "./mine/test.npz"\nhidden = [4]\n')
    with pytest.raises(ValueError, match=r"test.npz: has no train split"):
        train_spec(tmp_path / "u.toml", tmp_path / "out", progress=False)
