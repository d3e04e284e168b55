"""The experiments `trust` and `branch_and_bound` at smoke size, and that a false claim is counted as one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from toolkit.problems.settings import Settings
from toolkit.rungs import get_rung
from toolkit.solvers.highs import HighsSession

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _experiments_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))


def test_trust_writes_its_table(tmp_path: Path) -> None:
    import trust

    table = trust.main(["--out", str(tmp_path), "--count", "1", "--samples", "0", "--solvers", "highs"])
    assert set(table["model"]) == {"LP", "MILP"}
    assert (table["solves"] == 2).all()
    assert (table["largest_excess"] < 1e-6).all()
    stored = pd.read_csv(tmp_path / "table.csv")
    assert len(stored) == len(table)
    assert (tmp_path / "provenance.json").is_file()
    assert (tmp_path / "table.md").read_text(encoding="utf-8").count("\n") == len(table) + 2


def test_a_false_claim_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    import trust

    honest = HighsSession.minimize

    def boastful(self: HighsSession, *arguments: Any, **options: Any) -> Any:
        """An LP's bound is recomputed from its duals: there only the objective can be overstated."""
        report = honest(self, *arguments, **options)
        return replace(report, bound=report.bound + 0.5 * self.model.is_mip, incumbent=report.incumbent + 0.5)

    settings = Settings(solver="highs", mip_gap=0.0, mip_gap_abs=1e-9)
    ((name, problem),) = trust.random_problems(1, 0, settings)
    honestly = [bound.upper for bound in get_rung("bab")(problem)]
    monkeypatch.setattr(HighsSession, "minimize", boastful)
    rows = list(trust.compare(name, problem, ["highs"]))
    table = trust.summarize(pd.DataFrame(rows)).set_index("model")
    assert table.loc["MILP", "false_claims"] == 2
    assert table.loc["LP", "above_certified"] == 2
    # relative to 1 + |m*|, and m* itself is what bab found before anybody boasted
    assert table.loc["MILP", "largest_false"] == pytest.approx(
        max(0.5 / (1 + abs(least)) for least in honestly), rel=1e-4
    )


def test_branch_and_bound_writes_its_table(tmp_path: Path) -> None:
    import branch_and_bound

    arguments = ["--out", str(tmp_path), "--cases", "digits-standard", "--limit", "1", "--solvers", "bab", "highs"]
    table = branch_and_bound.main(arguments)
    assert list(table["solver"]) == ["bab", "highs"]
    assert (table["solved"] == table["margins"]).all()
    assert (table["largest_gap"] <= 1e-4 + 1e-7).all()
    assert (tmp_path / "table.md").is_file()
