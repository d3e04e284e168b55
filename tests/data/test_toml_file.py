"""Specs in TOML: errors are one line that names the file, the line, the key, its value and what is allowed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, field_validator, model_validator

from toolkit.data.toml_file import LARGEST_SPEC, StrictModel, line_of, load_toml, open_toml, validated
from toolkit.training.spec import load_train_spec

Share = Annotated[float, Field(ge=0, le=1)]


class Fruit(StrictModel):
    name: str
    weight: Annotated[int, Field(ge=1)] | Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = 1
    shares: Mapping[str, Share | tuple[Share, Share]] = {}
    ripe: bool | None = None

    @field_validator("name")
    @classmethod
    def _short(cls, name: str) -> str:
        if len(name) > 5:
            raise ValueError(f"name must have at most 5 letters, got {len(name)}")
        return name


class Stall(StrictModel):
    kind: Literal["market", "shop"] = "market"
    best: Fruit | None = None
    fruit: Annotated[tuple[Fruit, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _differ(self) -> Stall:
        if len({one.name for one in self.fruit}) < len(self.fruit):
            raise ValueError("fruit must differ")
        return self


GOOD = 'kind = "shop"\n[[fruit]]\nname = "fig"\nweight = [1, 2]\nshares = { sugar = 0.1, water = [0.7, 0.8] }\n'
WRONG = [
    ("", "kindd = 1\n", "line 1: unknown key 'kindd'; allowed: kind, best, fruit; did you mean 'kind'?"),
    ('name = "fig"\n', 'name = "fig"\nweigth = 2\n', "line 4: unknown key 'fruit[0].weigth'; allowed: name, weight, "
     "shares, ripe; did you mean 'weight'?"),
    ('name = "fig"\n', "", "key 'fruit[0].name' is missing"),
    ('"shop"', '"stand"', "line 1: kind: input should be 'market' or 'shop', got 'stand'"),
    ("[1, 2]", "[1, -2]", "line 4: fruit[0].weight[1]: input should be greater than or equal to 0, got -2"),
    ("[1, 2]", "0", "line 4: fruit[0].weight: input should be greater than or equal to 1, got 0"),
    ("[1, 2]", "true", "line 2: fruit[0]: weight must not be true or false, got true"),
    ("0.1", "7", "line 5: fruit[0].shares.sugar: input should be less than or equal to 1, got 7"),
    ("0.8]", "8]", "line 5: fruit[0].shares.water[1]: input should be less than or equal to 1, got 8"),
    ('"fig"', '"banana"', "line 3: fruit[0].name: name must have at most 5 letters, got 6"),
    ('[[fruit]]', '[best]\nname = "fig"\nripe = 3\n[[fruit]]', "line 4: best.ripe: input should be a valid boolean, "
     "unable to interpret input, got 3"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "message"), WRONG)
def test_errors_name_file_line_key_and_what_is_allowed(old: str, new: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text(GOOD.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ValueError) as caught:
        load_toml(file, Stall)
    said = str(caught.value)
    assert said.startswith(f"{file}: ")
    assert said.removeprefix(f"{file}: ").removeprefix("line 2: ") == message.removeprefix("line 2: ")
    with pytest.raises(ValueError) as caught:  # the same without a file
        validated(Stall, open_toml(file).content)
    assert said.endswith(str(caught.value))


def test_what_is_right_is_read(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())  # as Windows writes it
    stall = load_toml(file, Stall)
    assert stall.fruit[0] == Fruit(name="fig", weight=(1, 2), shares={"sugar": 0.1, "water": (0.7, 0.8)})
    assert open_toml(file).content["kind"] == "shop"


def test_what_all_of_it_breaks_has_no_line(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text(GOOD + '[[fruit]]\nname = "fig"\n', encoding="utf-8")
    with pytest.raises(ValueError) as caught:
        load_toml(file, Stall)
    assert str(caught.value) == f"{file}: fruit must differ"
    with pytest.raises(ValueError, match=r"^input should be a valid dictionary"):
        validated(Stall, [1])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"a = 1\nb = 'x\n", r"line 2"),
        (b"a = [\n\n\n", "end of document, line 1"),
        (b"a = " + b"[" * 50_000, "nested too deeply"),
        (b"\xff", "can't decode byte"),
        (b"a = 1\na = 2\n", "Cannot overwrite a value"),
        (b"#" * (LARGEST_SPEC + 1), f"at most {LARGEST_SPEC} bytes"),
    ],
)
def test_what_is_no_toml_is_named(content: bytes, reason: str, tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=rf"s\.toml is not valid TOML: .*{reason}") as caught:
        open_toml(file)
    assert "\n" not in str(caught.value)


def test_missing_files_and_folders_are_named_as_what_they_are(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "x.toml"):
        with pytest.raises(FileNotFoundError, match=f"^no table file at {path}"):
            open_toml(path, "table")
    no_path: Any = 3
    with pytest.raises(ValueError, match="path must be a path, got 3"):
        open_toml(no_path)


def test_long_names_and_values_do_not_fill_the_screen(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    for text in (f"{'k' * 10_000} = 1\n{GOOD}", GOOD.replace("shop", "s" * 10_000)):
        file.write_text(text, encoding="utf-8")
        with pytest.raises(ValueError) as caught:
            load_toml(file, Stall)
        assert len(str(caught.value)) < 600


def test_defaults_of_a_training_file_stand_in_every_network(tmp_path: Path) -> None:
    file = tmp_path / "t.toml"
    networks = '[[networks]]\nname = "a"\nhidden = [4]\n[[networks]]\nname = "b"\nhidden = [4]\nepochs = 5\n'
    file.write_text(f'[defaults]\ndataset = "digits"\nepochs = 3\n{networks}', encoding="utf-8")
    assert [one.epochs for one in load_train_spec(file).networks] == [3, 5]
    for text in ("defaults = 1\n", "networks = 3\n"):
        file.write_text(text + ("" if "networks" in text else networks), encoding="utf-8")
        with pytest.raises(ValueError, match="defaults must be a table and networks a list of tables"):
            load_train_spec(file)


def test_lines_of_keys() -> None:
    text = "a = 1\n[t]\nb = 2\n[[n]]\nc = 3\n[[n]]\n\n'c' = 4\n"
    places = {("a",): 1, ("t", "b"): 3, ("n", 0, "c"): 5, ("n", 1, "c"): 8, ("n", 2, "c"): None, ("z",): None}
    assert {place: line_of(text, place) for place in places} == places
