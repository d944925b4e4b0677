"""Checks a whole data set: several studies at once, resumable, with little in memory however long the list is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cmrvlm.errors import CmrvlmError, ends_loudly
from cmrvlm.instructions.collate import Collator
from cmrvlm.study.atomic_files import write_json
from cmrvlm.tasks.mixture import Mixture
from data_modules.checking.checks import (
    ERROR,
    Checked,
    Fault,
    check_set,
    check_study,
    counts,
    unreadable,
)
from data_modules.checking.page import montage, write_page
from data_modules.code_key import code_digest, modules_of
from data_modules.sources.base import Source
from data_modules.split import Split

MOST_PICTURES = 200  # a page with more is too long to be looked at


@dataclass(frozen=True)
class CheckRun:
    """The check of one source.

    Attributes:
        source: Where studies come from.
        out: Folder of the result; what it holds already is not checked again while files and code stay the same.
        mixture: Instructions, for leaks.
        collator: Tokenizer and limits, for lengths; None counts none.
        workers: Studies that are checked at once.
    """

    source: Source
    out: Path
    mixture: Mixture | None = None
    collator: Collator | None = None
    workers: int = 2

    def run(self) -> Iterator[Checked]:
        """Check studies; results come in their order."""
        (self.out / "studies").mkdir(parents=True, exist_ok=True)
        work = partial(check_one, settings=self)
        ids = self.source.study_ids()
        if self.workers < 2:
            yield from map(work, ids)
            return
        with ProcessPoolExecutor(self.workers) as pool:
            yield from pool.map(work, ids, chunksize=4)

    def finish(self, checked: list[Checked], split: Split | None, title: str) -> dict[str, Any]:
        """Write `check.json` and `check.html`, and return what the former holds."""
        self.out.mkdir(parents=True, exist_ok=True)
        faults = [fault for one in checked for fault in one.faults] + check_set(checked, split)
        if not checked:
            faults.append(Fault(ERROR, "empty", "", "the data holds no study"))
        faults.sort(key=lambda one: one.level != ERROR)
        flawed = {one.study for one in faults}
        order = sorted(checked, key=lambda one: one.study not in flawed)[:MOST_PICTURES]
        pictures = {one.study: path for one in order if (path := self.picture(one.study)).is_file()}
        tables = counts(checked)
        write_page(self.out / "check.html", title, checked, faults, tables, pictures)
        errors = sum(one.level == ERROR for one in faults)
        content = {
            "verdict": "errors" if errors else "warnings" if faults else "pass",
            "studies": len(checked),
            "errors": errors,
            "warnings": len(faults) - errors,
            "longest_row": max(
                (one.longest_row for one in checked if one.longest_row is not None), default=None
            ),
            "counts": tables,
            "faults": [vars(one) for one in faults],
        }
        write_json(self.out / "check.json", content)
        return content

    def _stem(self, study_id: str) -> Path:
        return self.out / "studies" / hashlib.sha256(study_id.encode()).hexdigest()[:16]

    def picture(self, study_id: str) -> Path:
        """Where a study's montage lies."""
        return self._stem(study_id).with_suffix(".png")

    def record(self, study_id: str) -> Path:
        """Where a study's result lies."""
        return self._stem(study_id).with_suffix(".json")

    def mark(self, study_id: str) -> str:
        """Changes when the study's files, the source or the checks do."""
        try:
            stats = [
                (path.name, path.stat().st_size, path.stat().st_mtime_ns)
                for path in self.source.files(study_id)
            ]
        except FileNotFoundError:
            stats = []
        code = code_digest([__name__, *modules_of(self.mixture)])
        limit = None if self.collator is None else self.collator.max_length
        parts = [study_id, stats, self.source.fingerprint(), code, limit]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


@ends_loudly
def check_one(study_id: str, settings: CheckRun) -> Checked:
    """Check one study, or take what an earlier run found."""
    record, mark = settings.record(study_id), settings.mark(study_id)
    if record.is_file():
        kept = json.loads(record.read_text())
        if kept["mark"] == mark:
            return Checked.from_json(kept["found"])
    try:
        study = settings.source.load(study_id)
        found = check_study(study, settings.mixture, settings.collator)
        settings.picture(study_id).write_bytes(montage(study))
    except CmrvlmError as error:
        found = unreadable(study_id, error)
    except FileNotFoundError as error:
        missing = CmrvlmError("there is no such file", file=Path(str(error.filename)).name)
        found = unreadable(study_id, missing)
    write_json(record, {"mark": mark, "found": found.to_json()})
    return found
