"""The seconds a search may take, and what is left of them for the next thing it starts."""

from __future__ import annotations

import time
from dataclasses import replace

from toolkit.problems.settings import Settings

LEAST_LEFT = 1e-3  # seconds for what is started all the same


class Clock:
    """settings.time_limit, running from now on; None never strikes."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._started = settings, time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._started

    @property
    def struck(self) -> bool:
        """Whether the time is over."""
        limit = self._settings.time_limit
        return limit is not None and self.seconds >= limit

    def rest(self) -> Settings:
        """The same settings for what is left of the time, or LEAST_LEFT."""
        limit = self._settings.time_limit
        if limit is None:
            return self._settings
        return replace(self._settings, time_limit=max(limit - self.seconds, LEAST_LEFT))
