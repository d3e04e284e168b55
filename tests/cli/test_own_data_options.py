"""--data with files of one's own, --eps and --domain as people write them, on every command that takes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import random_dense_network

from toolkit import Network
from toolkit.cli import main
from toolkit.cli.certify_command import VERDICT_CODES
from toolkit.runs import batch


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> Path:
    """A working folder with net.npz, and the same six images as mine.npz, wide.csv (0 … 255) and photos/."""
    from PIL.Image import fromarray

    monkeypatch.chdir(tmp_path)
    network = random_dense_network(rng, [4, 6, 3], "own")
    network.save(tmp_path / "net.npz")
    levels = rng.integers(0, 256, (6, 2, 2)).astype(np.uint8)
    labels = network.predict(levels.reshape(6, 4) / 255.0)
    np.savez(tmp_path / "mine.npz", images=levels, labels=labels)
    lines = [",".join(map(str, [label, *image.ravel()])) for label, image in zip(labels, levels, strict=True)]
    (tmp_path / "wide.csv").write_text("\n".join(lines))
    for k, (label, image) in enumerate(zip(labels, levels, strict=True)):
        (tmp_path / "photos" / str(label)).mkdir(parents=True, exist_ok=True)
        fromarray(image).save(tmp_path / "photos" / str(label) / f"{k}.png")
    weights = [(np.asarray(layer.weight), np.asarray(layer.bias)) for layer in network.layers]
    weights[0] = (weights[0][0] / 255.0, weights[0][1])
    Network.from_arrays(weights, "out_in", "wide").save(tmp_path / "wide.npz")
    return tmp_path


def json_of(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    assert main([*map(str, arguments), "--json", "-q"]) == 0
    found = capsys.readouterr()
    assert found.err == ""
    content: dict[str, Any] = json.loads(found.out)
    return content


def test_one_image_by_archive_folder_and_table(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = json_of(
        capsys, "certify", "net.npz", "--data", "mine.npz", "--index", 0, "--eps", "2/255", "--rungs", "dual"
    )
    assert plain["set"] == {"norm": "linf", "eps": 2 / 255, "domain": [0.0, 1.0]}
    wide = json_of(capsys, "certify", "wide.npz", "--data", "wide.csv", "--index", 0, "--eps", 2, "--rungs", "dual",
                   "--domain", "0,255")  # fmt: skip
    assert wide["set"] == {"norm": "linf", "eps": 2.0, "domain": [0.0, 255.0]}
    assert wide["verdict"] == plain["verdict"]
    np.testing.assert_allclose([m["lower"] for m in plain["margins"]], [m["lower"] for m in wide["margins"]], rtol=1e-9)
    assert main(["certify", "net.npz", "--data", "photos", "--index", "0", "--eps", "1/255", "--rungs", "dual"]) == 0
    assert "photos test image 0 (" in capsys.readouterr().out


def test_many_images_radii_and_proofs(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    many = json_of(capsys, "certify", "net.npz", "--data", "./photos", "--count", 6, "--eps", "1/255")
    assert sum(many["verdicts"].values()) == 6 == len(many["images"])
    far = json_of(capsys, "radius", "net.npz", "--data", "mine.npz", "--index", 1, "--rungs", "pgd,dual",
                  "--largest", "64/255", "--tolerance", "1/255")  # fmt: skip
    assert far["certified"] <= (far["refuted"] or np.inf)
    own = ["--data", "mine.npz", "--index", "1"]
    assert main(["certify", "net.npz", *own, "--eps", "1/2550", "--proof", "p.npz", "--rungs", "dual"]) == 0
    assert main(["check", "p.npz", "--network", "net.npz", *own]) == 0
    assert main(["check", "p.npz", "--network", "net.npz", "--data", "mine.npz", "--index", "2"]) == 1
    capsys.readouterr()


def test_the_domain_is_the_data_sets_own_unless_said(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with np.load("mine.npz") as content:
        images, labels = content["images"], content["labels"]
    np.savez("levels.npz", images=images, labels=labels, domain=np.array([0, 255]))
    ask = ["certify", "wide.npz", "--data", "levels.npz", "--index", 0, "--eps", 1, "--rungs", "dual"]
    assert json_of(capsys, *ask)["set"]["domain"] == [0.0, 255.0]
    assert json_of(capsys, *ask, "--domain", "-10,300")["set"]["domain"] == [-10.0, 300.0]
    assert json_of(capsys, *ask, "--no-domain")["set"]["domain"] is None
    np.save("box.npy", np.stack([np.zeros(4), np.full(4, 255.0)]))
    np.save("eps.npy", np.array([1.0, 0.0, 0.0, 2.0]))
    each = json_of(capsys, *ask[:7], "eps.npy", *ask[8:], "--domain", "box.npy")
    assert each["set"] == {"norm": "linf", "eps": [1.0, 0.0, 0.0, 2.0], "domain": [[0.0] * 4, [255.0] * 4]}
    assert main([*map(str, ask[:7]), "eps.npy", "--rungs", "dual", "--domain", "box.npy"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "ε per coordinate (0 … 2) in ℓ∞, domain per coordinate (within [0, 255])" in shown
    assert main(["certify", "wide.npz", "--data", "levels.npz", "--count", "2", "--eps", "eps.npy"]) == 0


def test_a_domain_and_radii_of_the_images_shape(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with np.load("mine.npz") as content:
        images, labels = content["images"] / 255.0, content["labels"]
    ends = np.stack([np.zeros((2, 2)), np.full((2, 2), 1.0)])
    np.savez("each.npz", images=images, labels=labels, domain=ends)
    np.save("eps.npy", np.full((2, 2), 0.01))
    for eps in ("0.01", "eps.npy"):
        own = ["certify", "net.npz", "--data", "each.npz", "--eps", eps]
        one = json_of(capsys, *own, "--index", 0, "--rungs", "dual")
        assert one["set"]["domain"] == [[0.0] * 4, [1.0] * 4]
        assert sum(json_of(capsys, *own, "--count", 6)["verdicts"].values()) == 6
    far = json_of(capsys, "radius", "net.npz", "--data", "each.npz", "--index", 0, "--rungs", "pgd,dual")
    assert far["domain"] == [[0.0] * 4, [1.0] * 4] or far["set"]["domain"] == [[0.0] * 4, [1.0] * 4]


def test_images_of_another_shape_are_refused_with_both(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = "digits has images of shape (1, 8, 8), the network takes (4,)"
    for how in (["--index", "0"], ["--count", "2"]):
        assert main(["certify", "net.npz", "--data", "digits", "--eps", "0.1", *how]) == 2
        assert told in capsys.readouterr().err


def test_finished_images_are_kept_where_the_rest_is_interrupted(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = batch.certify_chunk

    def until_the_third(chunk: batch.Chunk) -> list[batch.BatchRow]:
        if 2 in chunk.samples:
            raise KeyboardInterrupt
        return whole(chunk)

    monkeypatch.setattr(batch, "certify_chunk", until_the_third)
    asked = ["certify", "net.npz", "--data", "mine.npz", "--count", "5", "--eps", "0.01"]
    assert main([*asked, "--out", "rows.csv"]) == 130
    assert "interrupted; 2 of 5 images are in rows.csv" in capsys.readouterr().err
    assert pd.read_csv("rows.csv")["sample"].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("--data wide.csv --index 0 --eps 1", "'wide.csv' (test): pixels must lie in [0.0, 1.0], got"),
        ("--data none.npz --index 0 --eps 1", "no data at none.npz; own data are a .npz or .csv file, or a folder"),
        ("--data ~nobody-here/x.npz --index 0 --eps 1", "no home folder is known for '~nobody-here/x.npz'"),
        ("--data mine.npz --index 9 --eps 1", "--index must be in 0 … 5 for mine.npz, got 9"),
        ("--data mine.npz --count 9 --eps 1", "--count must be in 1 … 6 for mine.npz, got 9"),
        ("--data mine.npz --index 0 --eps 1/0", "--eps must be a number or a fraction such as 8/255, or a .npy file"),
        ("--data mine.npz --index 0 --eps none.npy", "no .npy file at none.npy"),
        ("--data mine.npz --index 0 --eps mine.npz", "--eps must be a number"),
        ("--data mine.npz --index 0 --eps three.npy", "eps must be one number or fit the centre's shape (4,), got"),
        (
            "--data mine.npz --index 0 --eps three.npy --norm l2",
            "--eps of one radius per coordinate is for --norm linf",
        ),
        ("--data mine.npz --index 0 --eps 1 --domain three.npy", "three.npy must have shape (2, …), low and high, got"),
        (
            "--data mine.npz --index 0 --eps 1 --save-witness w.txt",
            "--save-witness writes a .npy or a .png, got 'w.txt'",
        ),
        ("--data mine.npz --count 2 --eps 1 --save-witness w.npy", "--save-witness is for one image, not for --count"),
    ],
)
def test_errors_name_the_file_and_what_is_allowed(
    options: str, told: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save("three.npy", np.full(3, 0.1))
    assert main(["certify", "net.npz", *options.split()]) == 2
    found = capsys.readouterr()
    assert found.out == ""
    assert told in found.err.replace(f"{place.resolve()}/", "").replace(f"{place}/", "")


def test_every_verdict_has_a_code() -> None:
    assert VERDICT_CODES == {"YES": 0, "NO": 10, "MAYBE": 20}
