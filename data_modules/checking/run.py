"""Check of a whole data set: several studies at once, resumable, with bounded memory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cmrvlm.errors import CmrvlmError, raises_on_stop_iteration
from cmrvlm.instructions.collate import Collator
from cmrvlm.study.atomic_files import write_json
from cmrvlm.tasks.mixture import Mixture
from data_modules.checking.faults import ERROR, WARNING, CheckedStudy, Fault, unreadable_study
from data_modules.checking.page import montage, write_page
from data_modules.checking.set_checks import check_set, study_counts
from data_modules.checking.study_checks import check_study
from data_modules.code_key import code_digest, modules_of
from data_modules.sources.base import Source
from data_modules.split import Split

# A page with more pictures is too long to be looked at.
MOST_PICTURES = 200


@dataclass(frozen=True)
class CheckRun:
    """The check of one source.

    Attributes:
        source: Source of the studies.
        out: Folder of the result; a study whose result is there is not checked again while its
            files and the code stay the same.
        mixture: Instructions that are searched for leaks.
        collator: Tokenizer and limits by which token rows are counted; None counts none.
        workers: Studies that are checked at once.
    """

    source: Source
    out: Path
    mixture: Mixture | None = None
    collator: Collator | None = None
    workers: int = 2

    def run(self) -> Iterator[CheckedStudy]:
        """Check all studies and yield their results in the order of the source."""
        (self.out / "studies").mkdir(parents=True, exist_ok=True)
        check = partial(check_or_reuse, run=self)
        study_ids = self.source.study_ids()
        if self.workers < 2:
            yield from map(check, study_ids)
            return
        with ProcessPoolExecutor(self.workers) as pool:
            yield from pool.map(check, study_ids, chunksize=4)

    def finish(
        self, checked: list[CheckedStudy], split: Split | None, title: str
    ) -> dict[str, Any]:
        """Write `check.json` and `check.html`.

        Args:
            checked: Results of all studies.
            split: Part to study ids as the data set declares it, or None.
            title: Heading of the page.

        Returns:
            Content of `check.json`.
        """
        self.out.mkdir(parents=True, exist_ok=True)
        faults = _all_faults(checked, split)
        counts = study_counts(checked)
        pictures = self._pictures(checked, faults)
        write_page(self.out / "check.html", title, len(checked), faults, counts, pictures)

        errors = sum(fault.level == ERROR for fault in faults)
        warnings = len(faults) - errors
        row_lengths = [study.longest_row for study in checked if study.longest_row is not None]
        content = {
            "verdict": _verdict(errors, warnings),
            "studies": len(checked),
            "errors": errors,
            "warnings": warnings,
            "longest_row": max(row_lengths, default=None),
            "counts": counts,
            "faults": [vars(fault) for fault in faults],
        }
        write_json(self.out / "check.json", content)
        return content

    def picture_path(self, study_id: str) -> Path:
        """Return the file of a study's montage."""
        return self._stem(study_id).with_suffix(".png")

    def record_path(self, study_id: str) -> Path:
        """Return the file of a study's result."""
        return self._stem(study_id).with_suffix(".json")

    def digest(self, study_id: str) -> str:
        """Return a hash that changes when the study's files, the source or the checks do."""
        try:
            content_hash = self.source.study_fingerprint(study_id)
        except CmrvlmError:
            # A file is missing: the result stays until it is there.
            content_hash = ""
        lengths = None
        if self.collator is not None:
            lengths = self.collator.content_of_lengths()
        content = [
            study_id,
            content_hash,
            self.source.fingerprint(),
            code_digest([__name__, *modules_of(self.mixture)]),
            lengths,
            self._questions(),
        ]
        return _short_hash(json.dumps(content))

    def _questions(self) -> list[Any]:
        """Return what of the mixture decides which instructions a study has, as plain data."""
        if self.mixture is None:
            return []
        tasks = {
            name: {setting: str(value) for setting, value in vars(task).items()}
            for name, task in self.mixture.tasks.items()
        }
        return [tasks, list(self.mixture.languages), list(self.mixture.context)]

    def _stem(self, study_id: str) -> Path:
        """Return the path of a study's files without their suffix; an id may hold any character."""
        return self.out / "studies" / _short_hash(study_id)

    def _pictures(
        self, checked: Sequence[CheckedStudy], faults: Sequence[Fault]
    ) -> dict[str, Path]:
        """Return study id to montage of the studies that are shown, those with faults first."""
        faulty = {fault.study for fault in faults}
        study_ids = [study.study for study in checked]
        study_ids.sort(key=lambda study_id: study_id not in faulty)
        pictures = {}
        for study_id in study_ids[:MOST_PICTURES]:
            path = self.picture_path(study_id)
            # An unreadable study has no picture.
            if path.is_file():
                pictures[study_id] = path
        return pictures


@raises_on_stop_iteration
def check_or_reuse(study_id: str, run: CheckRun) -> CheckedStudy:
    """Check one study, or return what an earlier run found."""
    record_path = run.record_path(study_id)
    digest = run.digest(study_id)
    if record_path.is_file():
        record = json.loads(record_path.read_text())
        if record["mark"] == digest:
            return CheckedStudy.from_json(record["found"])

    try:
        study = run.source.load(study_id)
        checked = check_study(study, run.mixture, run.collator)
        for note in run.source.notes(study_id):
            checked.faults.append(Fault(WARNING, "unknown_number", study_id, note))
        run.picture_path(study_id).write_bytes(montage(study))
    except CmrvlmError as error:
        checked = unreadable_study(study_id, error)
    except FileNotFoundError as error:
        missing = CmrvlmError("there is no such file", file=Path(str(error.filename)).name)
        checked = unreadable_study(study_id, missing)
    write_json(record_path, {"mark": digest, "found": checked.to_json()})
    return checked


def _all_faults(checked: Sequence[CheckedStudy], split: Split | None) -> list[Fault]:
    """Return the faults of all studies and of the whole set, errors first."""
    faults: list[Fault] = []
    for study in checked:
        faults += study.faults
    faults += check_set(checked, split)
    if not checked:
        faults.append(Fault(ERROR, "empty", "", "the data holds no study"))
    faults.sort(key=lambda fault: fault.level != ERROR)
    return faults


def _verdict(errors: int, warnings: int) -> str:
    """Return the verdict of `check.json`."""
    if errors:
        return "errors"
    if warnings:
        return "warnings"
    return "pass"


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
