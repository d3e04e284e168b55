"""Tables and texts of a run: by their ending, all or none of a wrong list."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from toolkit.runs.outputs import write_files


def test_contents_are_written_by_their_ending(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": [0.123456789], "b": ["x"]})
    contents = {"t.csv": frame, "t.parquet": frame, "t.md": "| a |"}
    assert write_files(tmp_path / "new", contents, "%.3g") == [tmp_path / "new" / name for name in contents]
    assert (tmp_path / "new" / "t.csv").read_text() == "a,b\n0.123,x\n"
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "new" / "t.parquet"), frame)
    assert (tmp_path / "new" / "t.md").read_text() == "| a |"


def test_a_wrong_ending_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"written as \.csv or \.parquet, got 't\.txt'"):
        write_files(tmp_path, {"a.md": "x", "t.txt": pd.DataFrame()})
    assert list(tmp_path.iterdir()) == []
