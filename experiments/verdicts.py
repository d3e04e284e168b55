"""Verdict statistics of published networks: YES, NO, MAYBE, which rung settled each image, and the time it took.

    RELUGAP_DATA=FOLDER python experiments/verdicts.py                         # every part, then the table
    RELUGAP_DATA=FOLDER python experiments/verdicts.py --only wk-highs --count 1000

Parts (ball ‖x̃ − x‖∞ ≤ ε cut by [0, 1], the first MNIST test images, one process, one thread):
wk-highs, wk-auto: Wong & Kolter 2018's robust MNIST network (github.com/locuslab/convex_adversarial, 2cd8149,
models/mnist.pth), ε .1, 1,000 images, HiGHS alone and the default solver choice. lpd, nor: LPD_MLP_B_0.1, ε .1, 120 s
an image, and NOR_MLP_B, ε .02, 20 s an image, of Salman et al. 2019 (github.com/Hadisalman/robust-verify-benchmark,
fce1c27, weights/experiment_1), 100 images each. FOLDER holds the files as convex_adversarial/… and
robust-verify-benchmark/…, and the MNIST test set.

Published, % of 10,000 images: Wong & Kolter, Table 1: error 1.80, PGD 4.11, not certified by the dual 5.82 (ball not
cut). Salman et al., Table 1, robust error between PGD and MILP: LPD .1: 13.39 … 14.45, NOR .02: 10.06 … 13.48.

Writes OUT/NAME.csv (an image a row, appended while it runs: a stopped part goes on where it was), OUT/table.csv,
OUT/table.md and OUT/provenance.json. `cpu_seconds` is the process's own time, free of other users' load; time limits
are wall-clock. Takes about 1 minute for each wk part, several minutes for lpd and nor.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from threadpoolctl import threadpool_limits

from toolkit.certify import LADDER
from toolkit.certify_batch import BatchPlan, certify_samples, summarize
from toolkit.data import load_dataset
from toolkit.network import Network
from toolkit.problem import Settings
from toolkit.provenance import environment
from toolkit.store import replace_file

DIGITS = 6  # of the numbers in the per-image files


@dataclass(frozen=True)
class Part:
    """One batch of verdicts. source: under $RELUGAP_DATA, or "zoo:NAME", or a file. limit: seconds an image."""

    name: str
    source: str
    architecture: str | None
    dataset: str
    eps: float
    count: int
    solver: str = "auto"
    limit: float | None = None
    ladder: tuple[str, ...] = LADDER
    tighten: tuple[str, ...] = BatchPlan.tighten

    @property
    def plan(self) -> BatchPlan:
        """What every image is asked."""
        settings = Settings(solver=self.solver)
        return BatchPlan(self.eps, ladder=self.ladder, tighten=self.tighten, settings=settings, time_limit=self.limit)


_WK = ("convex_adversarial/mnist.pth", "wong-kolter-small", "mnist", 0.1, 1000)
_B = "robust-verify-benchmark"
PARTS = (
    Part("wk-highs", *_WK, solver="highs"),
    Part("wk-auto", *_WK),
    Part("lpd", f"{_B}/LPD_MLP_B_0.1.pth", "mlp", "mnist", 0.1, 100, limit=120.0),
    Part("nor", f"{_B}/NOR_MLP_B.pth", "mlp", "mnist", 0.02, 100, limit=20.0),
)


def load_part(part: Part) -> Network:
    """The part's network. Raises ValueError where $RELUGAP_DATA is needed and not set, FileNotFoundError."""
    if part.source.startswith("zoo:") or Path(part.source).is_file():
        return Network.load(part.source, part.architecture)
    folder = os.environ.get("RELUGAP_DATA")
    if not folder:
        raise ValueError(f"set RELUGAP_DATA to the folder that holds {part.source} (origins: see --help)")
    return Network.load(Path(folder) / part.source, part.architecture)


def run_part(part: Part, out: Path, record: dict[str, Any]) -> pd.DataFrame:
    """Certify the images that OUT/NAME.csv lacks, append each as it is finished, and return all rows.

    record: of this part in the folder's provenance, or {} for a new one. Raises ValueError if the file's rows were
    made by another network or other settings.
    """
    network = load_part(part)
    data = load_dataset(part.dataset)
    file = out / f"{part.name}.csv"
    made_by = part_record(part, network)
    comparable = {key: value for key, value in made_by.items() if key != "count"}
    if file.is_file() and any(record.get(key) != value for key, value in comparable.items()):
        raise ValueError(f"{file} was made with other settings; remove it or choose another --out")
    done = pd.read_csv(file) if file.is_file() else pd.DataFrame({"sample": []})
    record.update(made_by)
    write_record(out, part.name, record)
    clock = [time.process_time()]

    def keep(row: dict[str, object]) -> None:
        append_row(file, row | {"cpu_seconds": time.process_time() - clock[0]}, part.ladder)
        spent = row.get("seconds", math.nan)
        print(f"{part.name} {row['sample']}: {row['verdict']} {row['rung']} {spent:.2f} s", flush=True)
        clock[0] = time.process_time()

    with threadpool_limits(1):
        missing = sorted(set(range(part.count)) - set(done["sample"]))
        certify_samples(network, data, missing, part.plan, progress=keep)
    return read_rows(file)


def columns(ladder: Sequence[str]) -> list[str]:
    """The columns of a per-image file."""
    times = [f"seconds_{name}" for name in ("bounds", *ladder)]
    first = ["sample", "label", "verdict", "rung", "seconds", "cpu_seconds", "lower", "upper", "unstable"]
    return [*first, *times, "message"]


def append_row(file: Path, row: dict[str, object], ladder: Sequence[str]) -> None:
    """One image at the end of its file, which is started where it is missing."""
    frame = pd.DataFrame([row]).reindex(columns=columns(ladder))
    frame.to_csv(file, mode="a", header=not file.is_file(), index=False, float_format=f"%.{DIGITS}g")


def read_rows(file: Path) -> pd.DataFrame:
    """The rows of a per-image file, by sample; empty texts instead of blanks."""
    texts = {"rung": object, "message": object}
    return pd.read_csv(file, dtype=texts).sort_values("sample", ignore_index=True).fillna({"rung": "", "message": ""})


def part_record(part: Part, network: Network) -> dict[str, Any]:
    """What determines a part's rows, for provenance; no folders of absolute paths."""
    shown = Path(part.source).name if Path(part.source).is_absolute() else part.source
    record = asdict(replace(part, source=shown)) | {"digest": network.digest}
    return dict(json.loads(json.dumps(record)))


def read_records(out: Path) -> dict[str, dict[str, Any]]:
    """Every part's record in a folder."""
    file = out / "provenance.json"
    return dict(json.loads(file.read_text(encoding="utf-8"))["parts"]) if file.is_file() else {}


def write_record(out: Path, name: str, record: dict[str, Any]) -> None:
    """Put one part's record, with the versions it ran under, into the folder's provenance."""
    parts = read_records(out) | {name: record | {"environment": environment()}}
    text = json.dumps({"command": "python experiments/verdicts.py", "parts": parts}, indent=1, ensure_ascii=False)
    replace_file(out / "provenance.json", f"{text}\n".encode())


def part_summary(name: str, record: dict[str, Any], rows: pd.DataFrame) -> dict[str, Any]:
    """One row of the table: settings, verdicts, images settled by each rung, times in seconds."""
    found = summarize(rows)
    images = len(rows)
    settled = {f"settled_{rung}": found.settled_by.get(rung, 0) for rung in ("clean", *record["ladder"])}
    times = {f"seconds_{rung}": found.rung_seconds.get(rung, 0.0) for rung in ("bounds", *record["ladder"])}
    return {
        "part": name,
        "network": Path(record["source"]).stem,
        "eps": record["eps"],
        "solver": record["solver"],
        "limit": record["limit"],
        "images": images,
        **found.verdicts,
        "decided": 1 - found.verdicts["MAYBE"] / images,
        **settled,
        "seconds": found.seconds,
        "cpu_seconds": float(rows["cpu_seconds"].sum()),
        "median": float(rows["seconds"].median()),
        "slowest": found.slowest,
        "slowest_sample": int(rows["sample"].iloc[int(rows["seconds"].argmax())]),
        **times,
    }


def summary_table(out: Path) -> pd.DataFrame:
    """One row per part that has images in the folder."""
    records = read_records(out)
    found = [
        part_summary(name, record, read_rows(out / f"{name}.csv"))
        for name, record in records.items()
        if (out / f"{name}.csv").is_file()
    ]
    return pd.DataFrame(found)


def markdown(table: pd.DataFrame) -> str:
    """Two pipe tables: verdicts with the rungs that settled them, and seconds per rung."""
    setup = table[["part", "network", "eps", "solver", "limit", "images"]]
    setup = setup.rename(columns={"eps": "ε", "limit": "limit, s"})
    setup["limit, s"] = setup["limit, s"].map(lambda limit: "none" if pd.isna(limit) else f"{limit:g}")
    settled = table.filter(like="settled_").fillna(0).astype(int).rename(columns=lambda name: name[8:])
    counts = pd.concat([table[["YES", "NO", "MAYBE"]], settled], axis=1)
    times = table[["part"]].join(table.filter(like="seconds_").rename(columns=lambda name: name[8:]))
    times = times.rename(columns={"bounds": "l,u"}).fillna(0.0)
    times = times.assign(
        all=table["seconds"], CPU=table["cpu_seconds"], median=table["median"], slowest=table["slowest"]
    )
    shown = times.map(lambda value: value if isinstance(value, str) else f"{value:.3g}")
    return (
        "Verdicts, and images by the last rung they needed (`clean`: misclassified centre).\n\n"
        f"{pipe_table(pd.concat([setup, counts], axis=1))}\n"
        "Seconds, wall-clock, summed over the images except for the median and slowest; CPU: the process's own.\n\n"
        f"{pipe_table(shown)}"
    )


def pipe_table(frame: pd.DataFrame) -> str:
    """A frame as a Markdown pipe table."""
    lines = [list(frame.columns), ["---"] * frame.shape[1], *frame.to_numpy().tolist()]
    return "".join("| " + " | ".join(str(cell) for cell in line) + " |\n" for line in lines)


def chosen_parts(options: argparse.Namespace) -> list[Part]:
    """The parts asked for, with the options' changes applied."""
    parts = [part for part in PARTS if options.only in (None, part.name)]
    if options.network is not None:
        parts = [Part("custom", options.network, None, "mnist", 0.1, 100)]
    names = ("architecture", "dataset", "eps", "count", "solver", "limit")
    changes = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    for name in ("ladder", "tighten"):
        if getattr(options, name) is not None:
            changes[name] = tuple(word for word in getattr(options, name).split(",") if word)
    return [replace(part, **changes) for part in parts]


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command's options; those left out keep the part's own value."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=[part.name for part in PARTS], help="one part instead of all")
    parser.add_argument("--network", help="a network of one's own instead, as part `custom`: zoo:NAME or a file")
    parser.add_argument("--architecture", help="of a .pth file")
    parser.add_argument("--dataset")
    parser.add_argument("--eps", type=float)
    parser.add_argument("--count", type=int, help="the first so many test images")
    parser.add_argument("--solver")
    parser.add_argument("--limit", type=float, help="seconds an image")
    parser.add_argument("--ladder", help="rungs, comma-separated")
    parser.add_argument("--tighten", help="rungs added to l,u before ideal and exact, comma-separated; '' for none")
    parser.add_argument("--fresh", action="store_true", help="forget images done before, say by an older version")
    parser.add_argument("--out", type=Path, default=Path("results/verdicts"))
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> pd.DataFrame:
    """Run the parts and write the table; returns it."""
    options = parse(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    for part in chosen_parts(options):
        if options.fresh:
            (options.out / f"{part.name}.csv").unlink(missing_ok=True)
        run_part(part, options.out, read_records(options.out).get(part.name, {}))
    table = summary_table(options.out)
    table.to_csv(options.out / "table.csv", index=False, float_format="%.5g")
    (options.out / "table.md").write_text(markdown(table), encoding="utf-8")
    return table


if __name__ == "__main__":
    try:
        print(markdown(main()))
    except (ValueError, OSError) as error:
        print(f"verdicts: {error}", file=sys.stderr)
        sys.exit(2)
