"""Properties as TOML tables: the file, and the digest that keys of rows hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toolkit.problems.properties import Property
from toolkit.problems.property_table import PropertyTable, load_property, property_digest

TABLE: dict[str, Any] = {"rows": [[1, -0.5], [0, 2], [3, 1e-300]], "constants": [0, 0.1, -4], "groups": [0, 0, 1]}


def test_a_file_of_the_table_is_the_same_property(tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    path.write_text("\n".join(f"{key} = {value}" for key, value in TABLE.items()))
    read, made = load_property(path), PropertyTable(**TABLE).as_property()
    np.testing.assert_array_equal(read.objective.rows, made.objective.rows)
    np.testing.assert_array_equal(read.objective.constants, made.objective.constants)
    assert read.groups.tolist() == TABLE["groups"]
    path.write_text("rows = [[1, 2]]\nconstant = [1]\n")
    with pytest.raises(ValueError, match=r"p.toml: line 2: unknown key 'constant'; .*did you mean 'constants'"):
        load_property(path)
    with pytest.raises(FileNotFoundError, match="no property file at"):
        load_property(tmp_path / "none.toml")


def test_digests_are_equal_where_the_numbers_are_and_only_there() -> None:
    same = [
        Property.of([[1.0, 0.0], [0.0, 1.0]]),
        Property.of([[1.0, -0.0], [0.0, 1.0]], [0.0, -0.0], [0, 1]),
        PropertyTable(rows=((1, 0), (0, 1))).as_property(),
    ]
    others = [
        Property.of([[1.0, 0.0], [0.0, 1.0]], None, [0, 0]),
        Property.of([[1.0, 0.0], [0.0, 1.0]], [0.0, 1.0]),
        Property.of([[1.0, 0.0], [0.0, 1.0]], [1.0, 0.0]),
        Property.of([[1.0, 0.0, 0.0, 1.0]]),
        Property.of([[1.0, 0.0], [5e-324, 1.0]]),
    ]
    assert len({property_digest(one) for one in same}) == 1
    assert len({property_digest(one) for one in (same[0], *others)}) == 6
