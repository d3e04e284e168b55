"""Settings as the public entries take them: what they name is there, which is said before any work."""

from __future__ import annotations

from toolkit.data.arguments import instance
from toolkit.problems.settings import Settings
from toolkit.search.array_makers import in_torch
from toolkit.solvers.registry import check_solver_name


def usable_settings(settings: Settings | None) -> Settings:
    """The settings, the default ones for None. Raises ValueError for another object, for a solver that is not in the
    registry and for a device that torch does not have; ImportError for a device without torch."""
    if settings is None:
        return Settings()
    check_solver_name(instance("settings", settings, Settings).solver)
    if settings.device != "cpu":
        in_torch(settings.device)
    return settings
