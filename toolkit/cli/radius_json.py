"""`radius --json`: the distances of one image or of many as an object, its keys as docs/cli.md has them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pandas as pd

from toolkit.arrays import FloatArray
from toolkit.cli.certify_json import asked_facts, network_facts
from toolkit.cli.json_output import print_json
from toolkit.cli.question import Question
from toolkit.networks.network import Network
from toolkit.runs.distances import DistancePlan
from toolkit.verify.radius import Radius


def print_radius(
    question: Question, network: Network, center: FloatArray, plan: DistancePlan, label: int | None, radius: Radius
) -> None:
    """One image: the interval and whether it is closed, every rung's, the nearest unsafe point."""
    seen = None if radius.witness is None or label is None else int(network.predict(radius.witness))
    print_json(
        "radius",
        {
            "network": network_facts(question, network),
            **asked_facts(question, label),
            **_measured(plan),
            "certified": radius.certified,
            "refuted": radius.refuted,
            "closed": plan.closed(center, radius.certified, radius.refuted),
            "by_rung": [asdict(one) for one in radius.by_rung],
            "witness": radius.witness,
            "witness_class": seen,
        },
    )


def print_radii(
    question: Question,
    network: Network,
    plan: DistancePlan,
    lines: pd.DataFrame,
    table: pd.DataFrame,
    still_open: list[int],
    out: Path,
) -> None:
    """Many images: a line per image and rung, the table by rung, which stay open, where they were written."""
    print_json(
        "radius",
        {
            "network": network_facts(question, network),
            "data": question.data,
            "count": question.count,
            "property": question.property_file,
            **_measured(plan),
            "images": lines.to_dict("records"),
            "table": table.to_dict("records"),
            "not_closed": still_open,
            "written": out,
        },
    )


def _measured(plan: DistancePlan) -> dict[str, object]:
    return {"norm": plan.norm, "domain": plan.domain, "rungs": list(plan.rungs)}
