"""What training stands on: data that changed are seen, data that do not fit are refused before the first epoch."""

import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch: pip install relugap[train]")

from toolkit import Dataset  # noqa: E402
from toolkit.cli import main  # noqa: E402
from toolkit.networks.network import Network  # noqa: E402
from toolkit.training.loop import train, train_spec  # noqa: E402
from toolkit.training.spec import NetworkSpec  # noqa: E402

SPEC = {"name": "net", "dataset": "./own", "hidden": (4,), "epochs": 1, "batch": 10, "monitor": 5, "evaluate": 5}


def write_split(path, split, seed=0, classes=3, size=(2, 2), **more):
    rng = np.random.default_rng(seed)
    (path / "own").mkdir(exist_ok=True)
    arrays = {"images": rng.random((12, *size)), "labels": np.arange(12) % classes, **more}
    np.savez(path / "own" / f"{split}.npz", **arrays)


@pytest.fixture
def place(tmp_path):
    for seed, split in enumerate(("train", "test")):
        write_split(tmp_path, split, seed)
    return tmp_path


def spec_file(place, *networks, **keys):
    lines = [f"{key} = {value!r}" for key, value in (SPEC | keys).items() if key != "name"]
    text = "[defaults]\n" + "\n".join(lines).replace("(4,)", "[4]") + "\n"
    for network in networks or ("name = 'net'",):
        text += f"[[networks]]\n{network}\n"
    (place / "t.toml").write_text(text)
    return place / "t.toml"


def test_changed_data_are_trained_on_anew(place):
    file, out = spec_file(place), place / "out"
    (target,) = train_spec(file, out, progress=False)
    first = target.read_bytes()
    assert set(Network.load(target).metadata["data"]) == {"train", "test"}
    train_spec(file, out, progress=False)
    assert target.read_bytes() == first
    for split in ("train", "test"):
        write_split(place, split, 7)
        train_spec(file, out, progress=False)
        assert target.read_bytes() != first
        first = target.read_bytes()


def test_a_record_without_digests_is_left_alone_and_named_data_need_none(place):
    file, out = spec_file(place), place / "out"
    (target,) = train_spec(file, out, progress=False)
    network = Network.load(target)
    record = {key: value for key, value in network.metadata.items() if key != "data"}
    Network(network.layers, network.name, record).save(target)
    before = target.read_bytes()
    write_split(place, "train", 7)
    train_spec(file, out, progress=False)
    assert target.read_bytes() == before
    (named,) = train_spec(spec_file(place, dataset="digits", images=20), place / "named", progress=False)
    assert "data" not in Network.load(named).metadata


def test_a_checkpoint_of_other_data_is_refused_and_an_old_one_goes_on(place):
    spec = NetworkSpec(**{**SPEC, "epochs": 2})
    own = [Dataset.load(place / "own", split) for split in ("train", "test")]
    file = place / "net.pt"
    train(spec, *own, None, file)
    write_split(place, "train", 7)
    changed = Dataset.load(place / "own", "train")
    with pytest.raises(ValueError, match=r"net\.pt is of other data, which changed; remove it, or train on what made"):
        train(spec, changed, own[1], None, file)
    state = torch.load(file, weights_only=True)
    del state["data"]
    torch.save(state, file)
    assert len(train(spec, changed, own[1], None, file).history) == 2


@pytest.mark.parametrize(
    ("split", "change", "keys", "message"),
    [
        ("test", {"classes": 6}, {}, r"net: own \(test\) has label 3, the network has 3 classes"),
        ("train", {"classes": 1}, {}, r"net: .* must hold at least two classes, got 1"),
        ("test", {"size": (2, 3)}, {}, r"net: images of .* have shape \(2, 2\), of .* \(2, 3\)"),
        ("test", {"domain": np.array([0.0, 2.0])}, {}, r"net: .* must have the same domain, got \(0.0, 1.0\) and \(0"),
        ("train", {"labels": np.array([0, 999_999_999] * 6)}, {}, "net: a network has at most 268,435,456 weights, "),
        ("test", {}, {"hidden": [4, 10**9]}, "net: a network has at most 268,435,456 weights, 4,000,000,016 with"),
        ("test", {}, {"domain": [0.4, 0.5], "eps": 0.1}, r"domain must hold the images of own \(train\), 0.0.* … 0.9"),
        ("test", {}, {"weight_decay": 1e300}, "weight_decay"),
        ("test", {}, {"seed": 2**63}, "seed"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_trained(split, change, keys, message, place):
    write_split(place, split, **change)
    if "domain" in change:
        write_split(place, "train", domain=np.array([0.0, 1.0]))
    if "domain" in keys:  # checked by the loop, not only by the reader of files
        own = [Dataset.load(place / "own", split) for split in ("train", "test")]
        with pytest.raises(ValueError, match=message):
            train(NetworkSpec(**{**SPEC, **keys}), *own)
        return
    with pytest.raises(ValueError, match=message):
        train_spec(spec_file(place, **keys), place / "out", progress=False)
    assert not (place / "out" / "net.npz").exists()


def test_the_second_network_is_looked_at_before_the_first_is_trained(place):
    file = spec_file(place, "name = 'net'", "name = 'second'\nhidden = [1000000000]")
    with pytest.raises(ValueError, match="second: a network has at most"):
        train_spec(file, place / "out", progress=False)
    assert not (place / "out" / "net.npz").exists()


def test_a_folder_in_a_networks_place_and_no_cuda_are_said_first(place, monkeypatch, capsys):
    (place / "out" / "net.npz").mkdir(parents=True)
    assert main(["train", str(spec_file(place)), "--out", str(place / "out")]) == 2
    assert "is a folder, a file is to be written there" in capsys.readouterr().err
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["train", str(spec_file(place, device="cuda")), "--out", str(place / "other")]) == 2
    assert "net: device must be cpu or auto where torch has no CUDA, got 'cuda'" in capsys.readouterr().err


def test_a_network_remembers_what_its_classes_are_called(place, capsys):
    for seed, split in enumerate(("train", "test")):
        write_split(place, split, seed, names=np.array(["cat", "dog", "fox"]))
    (target,) = train_spec(spec_file(place), place / "out", progress=False)
    assert Network.load(target).metadata["class_names"] == ["cat", "dog", "fox"]
    write_split(place, "test", 1, names=np.array(["cat", "fox", "dog"]))
    ask = ["certify", str(target), "--eps", "0.01", "--rungs", "dual", "--data"]
    for how in (["--index", "0"], ["--count", "2"]):
        assert main([*ask, str(place / "own" / "test.npz"), *how]) == 2
        told = "classes of test.npz must be named as those that net was trained on, got 'fox' instead of 'dog'"
        assert told in capsys.readouterr().err
    write_split(place, "test", 1)
    with warnings.catch_warnings():
        assert main([*ask, str(place / "own" / "test.npz"), "--index", "0"]) == 0
