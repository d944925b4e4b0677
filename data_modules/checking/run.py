"""Check of a whole data set: several studies at once, resumable, with bounded memory."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from cmrvlm.errors import CmrvlmError, raises_on_stop_iteration
from cmrvlm.instructions.collate import Collator
from cmrvlm.runs.code_key import code_digest, modules_of
from cmrvlm.study.atomic_files import atomic_write, clear_leftovers, write_json
from cmrvlm.tasks.mixture import Mixture
from data_modules.checking.faults import ERROR, WARNING, CheckedStudy, Fault, unreadable_study
from data_modules.checking.page import montage, write_page
from data_modules.checking.set_checks import check_set, study_counts
from data_modules.checking.study_checks import check_study
from data_modules.parallel import default_workers, map_in_processes
from data_modules.sources.base import Source
from data_modules.split import Split
from data_modules.storage.in_use import exclusive

log = logging.getLogger(__name__)

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
        workers: Studies that are checked at once; None takes one a core, eight at most.
    """

    source: Source
    out: Path
    mixture: Mixture | None = None
    collator: Collator | None = None
    workers: int | None = None

    def run(self) -> Iterator[CheckedStudy]:
        """Check all studies and yield their results in the order of the source.

        Raises:
            CmrvlmError: Another check writes into the folder.
        """
        with exclusive(self.out, "out"):
            folder = self.out / "studies"
            folder.mkdir(exist_ok=True)
            clear_leftovers(folder)
            # Computed here, or each process computes it again.
            _ = self.settings_digest
            workers = self.workers or default_workers()
            study_ids = self.source.study_ids()
            yield from map_in_processes(check_or_reuse, study_ids, self, workers, "check.workers")

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
        return _short_hash(json.dumps([study_id, content_hash, self.settings_digest]))

    @cached_property
    def settings_digest(self) -> str:
        """Compute a hash of all that is the same for every study: settings and code."""
        lengths = None
        if self.collator is not None:
            lengths = self.collator.content_of_lengths()
        content = [
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
        """Return study id to montage of the studies that are shown, those with faults first.

        Only these are drawn: a drawing takes longer than all checks of a study.
        """
        faulty = {fault.study for fault in faults}
        # An unreadable study has no picture.
        study_ids = [study.study for study in checked if study.series]
        study_ids.sort(key=lambda study_id: study_id not in faulty)
        shown = study_ids[:MOST_PICTURES]
        (self.out / "studies").mkdir(exist_ok=True)
        undrawn = [study_id for study_id in shown if not self.picture_path(study_id).is_file()]
        workers = self.workers or default_workers()
        for _ in map_in_processes(_draw, undrawn, self, workers, "check.workers"):
            pass
        pictures = {}
        for study_id in shown:
            path = self.picture_path(study_id)
            if path.is_file():
                pictures[study_id] = path
        return pictures


@raises_on_stop_iteration
def check_or_reuse(study_id: str, run: CheckRun) -> CheckedStudy:
    """Check one study, or return what an earlier run found."""
    record_path = run.record_path(study_id)
    digest = run.digest(study_id)
    if record_path.is_file():
        record = json.loads(record_path.read_text(encoding="utf-8"))
        if record["mark"] == digest:
            return CheckedStudy.from_json(record["found"])

    checked = _check(study_id, run)
    # It may show what the study was.
    run.picture_path(study_id).unlink(missing_ok=True)
    write_json(record_path, {"mark": digest, "found": checked.to_json()})
    return checked


def _check(study_id: str, run: CheckRun) -> CheckedStudy:
    """Check one study; a study that cannot be read has one fault that says why."""
    try:
        study = run.source.load(study_id)
        label_map = getattr(run.source, "label_map", None)
        checked = check_study(study, run.mixture, run.collator, label_map)
        for note in run.source.notes(study_id):
            checked.faults.append(Fault(WARNING, "unknown_number", study_id, note))
        return checked
    except CmrvlmError as error:
        return unreadable_study(study_id, error)
    except FileNotFoundError as error:
        missing = CmrvlmError("there is no such file", file=Path(str(error.filename)).name)
        return unreadable_study(study_id, missing)
    # One study of an archive must not end the others, whatever its files hold.
    except Exception as error:
        log.debug("study %s", study_id, exc_info=True)
        return unreadable_study(
            study_id, CmrvlmError(f"it cannot be read ({type(error).__name__})")
        )


def _draw(study_id: str, run: CheckRun) -> None:
    """Write the montage of a study, unless its files are gone by now."""
    try:
        study = run.source.load(study_id)
    except CmrvlmError:
        return
    with atomic_write(run.picture_path(study_id)) as temporary:
        temporary.write_bytes(montage(study))


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
