"""A reproduction's work on disk: a sample's answer a row, in the store at OUT/answers.

A row's key is a hash of the question asked and the sample, so that a stopped reproduction goes on where it was and a
changed question starts afresh.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from toolkit.runs.rows import Schema, Stored
from toolkit.runs.shards import append_rows, prepare_folder
from toolkit.runs.store import read_rows

FOLDER = "answers"
FLUSH_SECONDS = 1.0  # of answers that a killed reproduction may cost
Answer = dict[str, object]  # a row by column, or sample and message of one that failed
_PYTHON: dict[str, Callable[[Any], object]] = {"str": str, "int64": int, "float64": float}
Advance = Callable[[str, int, int], None]  # title, done, total


class UnansweredError(ValueError):
    """Some samples of a cell failed; the others are stored."""


class Sampled(Protocol):
    """A task about one sample."""

    @property
    def sample(self) -> int:
        """Its place in the data set."""


def failed_answer(task: Sampled, error: Exception) -> Answer:
    """The answer to a task that raised: `Answers.complete` names it and keeps the others."""
    return {"sample": task.sample, "message": f"{type(error).__name__}: {error}"}


class Answers:
    """The stored answers to one question. run_id: of the run that writes new ones."""

    def __init__(self, out: Path, run_id: str, schema: Schema, question: Mapping[str, object]) -> None:
        self._folder, self._run_id, self._schema = out / FOLDER, run_id, schema
        self._question = json.dumps(question, sort_keys=True, default=str)
        self._unsaved: list[Stored] = []
        self._saved = time.monotonic()
        prepare_folder(self._folder)

    def read(self, samples: Sequence[int]) -> pd.DataFrame:
        """What is stored of these samples, in their order, indexed by sample."""
        rows = read_rows(self._folder, everything=True, schema=self._schema).set_index("key")
        keys = [self._key(sample) for sample in samples]
        found = rows.loc[[key for key in keys if key in rows.index]]
        return found.drop(columns="run_id").set_index("sample")

    def keep(self, answer: Answer) -> None:
        """One more sample's answer: the columns of its row but key and run_id."""
        own = {"key": self._key(answer["sample"]), "run_id": self._run_id}
        row: dict[str, Any] = {
            name: _PYTHON[dtype]((answer | own)[name]) for name, dtype in self._schema.columns.items()
        }
        self._unsaved.append(self._schema.kind(**row))
        if time.monotonic() - self._saved > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Bring what was kept to the disk. Raises StoreError."""
        if self._unsaved:
            append_rows(self._folder, self._run_id, self._unsaved)
        self._unsaved, self._saved = [], time.monotonic()

    def _key(self, sample: object) -> str:
        return hashlib.sha256(f"{self._question}{sample}".encode()).hexdigest()

    def complete(
        self,
        title: str,
        samples: Sequence[int],
        ask: Callable[[Sequence[int], Callable[[Answer], None]], object],
        advance: Advance,
    ) -> pd.DataFrame:
        """The answers to all of these samples, as `read` gives them, after asking for those that are missing.

        ask: takes the missing samples and what to call with each answer, or with sample and message of one that failed.
        Raises UnansweredError, with the others stored, where samples failed.
        """
        known = self.read(samples)
        missing = [sample for sample in samples if sample not in known.index]
        done, failed = len(known), []
        advance(title, done, len(samples))

        def settle(answer: Answer) -> None:
            nonlocal done
            done += 1
            if "seconds" in answer:
                self.keep(answer)
            else:
                failed.append(f"image {answer['sample']}: {answer['message']}")
            advance(title, done, len(samples))

        try:
            if missing:
                ask(missing, settle)
        finally:
            self.flush()
        if failed:
            raise UnansweredError(f"{title}: {len(failed)} of {len(missing)} images failed, first {failed[0]}")
        return self.read(samples) if missing else known
