"""What a run leaves to look at: tables and texts, each file whole or absent."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from toolkit.data.atomic import write_csv, write_parquet, write_text

Content = pd.DataFrame | str


def write_files(out: Path, contents: Mapping[str, Content], float_format: str | None = None) -> list[Path]:
    """Write frames as .csv or .parquet and texts as they are, each in one step; returns the paths.

    float_format: of the .csv files. Raises ValueError for a frame under another ending, before anything is written.
    """
    wrong = [
        name
        for name, content in contents.items()
        if isinstance(content, pd.DataFrame) and Path(name).suffix not in (".csv", ".parquet")
    ]
    if wrong:
        raise ValueError(f"tables are written as .csv or .parquet, got {wrong[0]!r}")
    for name, content in contents.items():
        path = out / name
        if isinstance(content, str):
            write_text(path, content)
        elif path.suffix == ".csv":
            write_csv(path, content, float_format)
        else:
            write_parquet(path, content, compression="zstd")
    return [out / name for name in contents]
