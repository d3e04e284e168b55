"""Live tools of one region: solver sessions, a growing LP, pseudo-costs. They change, so they are lent, not shared."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast
from weakref import WeakKeyDictionary

from toolkit.problems.region import Region

Tool = TypeVar("Tool")


class Workspace:
    """Keeps tools from one loan to the next, for every region by itself.

    A tool is away while it is lent, and comes back only if nothing was raised in between, Ctrl-C among it: what an
    exception left half changed is never used again.
    """

    def __init__(self) -> None:
        self._tools: WeakKeyDictionary[Region, dict[Hashable, Any]] = WeakKeyDictionary()

    @contextmanager
    def borrow(
        self, region: Region, key: Hashable, make: Callable[[], Tool], usable: Callable[[Tool], bool] | None = None
    ) -> Iterator[Tool]:
        """The region's tool called `key`, made at first use and anew where `usable` denies it.

        Whatever the borrower changes it restores; a nested loan of the same tool gets one of its own.
        """
        tools = self._tools.setdefault(region, {})
        tool = tools.pop(key, None)
        if tool is None or (usable is not None and not usable(tool)):
            tool = make()
        yield cast(Tool, tool)
        tools[key] = tool

    def holds(self, region: Region, key: Hashable) -> bool:
        """Whether a tool waits to be lent again."""
        return key in self._tools.get(region, {})
