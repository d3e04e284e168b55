"""Which ONNX files of given folders import, what hinders the others, and whether the networks compute what onnxruntime
does.

    python experiments/import_survey.py vnncomp2021 vnncomp2022 --out results/import-survey

Every .onnx and .onnx.gz file of at most --largest bytes below the folders. Columns of files.csv: `imports`, or `reason`
with all obstacles; `difference`, the largest |relugap − onnxruntime| over outputs and random points of scales 0.1, 1
and 10, relative to the largest |output| at points of that scale, the runtime in the file's own type; `seconds` to
import, the check against the runtime included; `bytes` as stored; inputs, outputs, stages, ReLUs, and `entries`, the
most that the maps' sparse matrices hold; `dropped`, the final operator left out. A file whose unpacked content was seen
before has that one's numbers, and its name in `same_as`. table.md: a line per folder of files. A run that was stopped
is taken up: contents (sha256) whose rows stand in files.csv are not read again; delete it to start over.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from toolkit.cli.experiment import end_experiment, experiment_parser, experiment_run
from toolkit.data.registry import data_folder
from toolkit.networks.importers.evaluation import stage_outputs
from toolkit.networks.importers.onnx_graphs import read_model_output
from toolkit.networks.importers.onnx_replay import random_points, runtime_outputs, runtime_session
from toolkit.networks.importers.tensors import LARGEST, entries
from toolkit.networks.network import Network
from toolkit.report import pipe_table

ENDINGS = (".onnx", ".onnx.gz")
FILES = "files.csv"
MEASURED = ("imports", "difference", "seconds", "inputs", "outputs", "stages", "relus", "entries", "dropped", "reason")
COLUMNS = ("folder", "file", "bytes", *MEASURED, "same_as", "sha256")
LONGEST = 400  # characters of a reason that are kept


def model_files(folders: Sequence[Path], largest: int) -> Iterator[tuple[str, Path]]:
    """Every model file in order, with the name it has below its folder's parent."""
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(f"no folder {folder}")
        for path in sorted(folder.rglob("*")):
            if path.name.endswith(ENDINGS) and path.is_file() and path.stat().st_size <= largest:
                yield path.relative_to(folder.parent).as_posix(), path


def content_key(path: Path) -> str:
    """A digest of the model, unpacked; of the file as it is where it cannot be unpacked."""
    content = path.read_bytes()
    if path.suffix == ".gz":
        with contextlib.suppress(OSError, EOFError):
            content = gzip.decompress(content)
    return hashlib.sha256(content).hexdigest()


def earlier_rows(path: Path) -> dict[str, dict[str, object]]:
    """What an earlier run measured, by content."""
    if not path.is_file():
        return {}
    found = pd.read_csv(path).drop_duplicates("sha256")
    kept = found.reindex(columns=list(MEASURED)).astype(object).where(lambda values: values.notna(), None)
    return dict(zip(found["sha256"].tolist(), kept.to_dict("records"), strict=True))


def relative_difference(path: Path, network: Network) -> float:
    """The largest difference between network and onnxruntime, relative to the outputs' size at points of one scale."""
    model, output = read_model_output(path)
    session = runtime_session(model, output)
    if session is None:
        return float("nan")
    fed = [n if isinstance(n, int) and n > 0 else 1 for n in session.get_inputs()[0].shape]
    worst = 0.0
    for points in random_points(network.input_size):
        given, expected = runtime_outputs(session, fed, points)
        found = stage_outputs(network.stages, given)
        size = float(np.max(np.abs(expected))) or 1.0
        worst = max(worst, float(np.max(np.abs(found - expected))) / size)
    return worst


def survey(path: Path) -> dict[str, object]:
    """What there is to say of one file."""
    start = time.perf_counter()
    try:
        network = Network.load(path)
    except (ValueError, MemoryError) as error:
        reason = str(error).removeprefix(f"{path}: ") or type(error).__name__
        return {"imports": False, "reason": reason[:LONGEST], "seconds": time.perf_counter() - start}
    seconds = time.perf_counter() - start
    stored = sum(entries(layer) for layer in network.maps)
    row: dict[str, object] = {"imports": True, "seconds": seconds, "inputs": network.input_size}
    row |= {"outputs": network.output_size, "stages": len(network.stages), "relus": sum(network.relu_sizes)}
    row |= {"entries": stored, "dropped": network.metadata.get("dropped", "")}
    return row | {"difference": relative_difference(path, network) if stored <= LARGEST else float("nan")}


def summarize(files: pd.DataFrame) -> pd.DataFrame:
    """A line per folder of files: how many import, how well they agree, and the first reason why others do not."""
    found = []
    numbers = files.assign(difference=files["difference"].astype(float), relus=files["relus"].astype(float))
    for folder, group in numbers.groupby("folder", sort=True):
        refused = group[~group["imports"].astype(bool)]
        imported = group[group["imports"].astype(bool)]
        found.append(
            {
                "folder": folder,
                "files": len(group),
                "import": len(imported),
                "refused": len(refused),
                "largest_difference": imported["difference"].max(),
                "median_seconds": group["seconds"].median(),
                "largest_seconds": group["seconds"].max(),
                "most_relus": imported["relus"].max(),
                "why_refused": "; ".join(sorted({_kind(str(reason)) for reason in refused["reason"]})),
            }
        )
    return pd.DataFrame(found)


def _kind(reason: str) -> str:
    """A reason without the names of its nodes."""
    first = reason.split("; ")[0]
    return first.split("): ", 1)[1] if first.startswith("node ") and "): " in first else first


def benchmark_folders(given: Sequence[Path]) -> Sequence[Path]:
    """The folders named, else the benchmarks in the data folder. Raises ValueError where neither is there."""
    folders = given or (data_folder() / "vnncomp",)
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(f"no folder {folder}: name folders of benchmarks, or set RELUGAP_DATA")
    return folders


def main(arguments: Sequence[str] | None = None) -> pd.DataFrame:
    """Run, and write files.csv, table.csv, table.md and provenance.json."""
    parser = experiment_parser(__doc__, "import-survey")
    parser.add_argument("folders", nargs="*", type=Path, help="with ONNX files below them; else $RELUGAP_DATA/vnncomp")
    parser.add_argument("--largest", type=int, default=4 * 2**20, help="bytes of the largest file to read")
    options = parser.parse_args(arguments)
    rows: list[dict[str, object]] = []
    with experiment_run(parser, options) as run:
        known = earlier_rows(options.out / FILES)
        first: dict[str, str] = {}
        for name, path in model_files(benchmark_folders(options.folders), options.largest):
            key = content_key(path)
            if key not in known:
                known[key] = survey(path)
                print(f"{name}: {known[key].get('reason') or 'imports'}", file=sys.stderr)
                run.write({FILES: pd.DataFrame([{**found, "sha256": k} for k, found in known.items()])})
            place = {"folder": name.rsplit("/", 1)[0], "file": name, "bytes": path.stat().st_size, "sha256": key}
            rows.append({**known[key], **place, "same_as": first.get(key, "")})
            first.setdefault(key, name)
        files = pd.DataFrame(rows).reindex(columns=COLUMNS)
        table = summarize(files)
        run.record(files=len(files), imported=int(files["imports"].astype(bool).sum()), largest=options.largest)
        run.write({"table.md": pipe_table(table, digits=3), "table.csv": table, FILES: files}, float_format="%.4g")
    return table


if __name__ == "__main__":
    sys.exit(end_experiment(main))
