"""Faults of a data set, and what the check of one study gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from cmrvlm.errors import CmrvlmError

ERROR = "error"
WARNING = "warning"


@dataclass(frozen=True)
class Fault:
    """A single thing that is wrong with a study or with the whole set.

    Attributes:
        level: `error` or `warning`.
        code: Short name of this sort of fault, such as `spacing`.
        study: Id of the study, empty for the whole set.
        text: Description in words; never a value of a report.
    """

    level: str
    code: str
    study: str
    text: str


class FaultLog:
    """Faults of one study, in the order in which they are found.

    Args:
        study_id: Id of the study.
    """

    def __init__(self, study_id: str) -> None:
        self.study_id = study_id
        self.faults: list[Fault] = []

    def error(self, code: str, text: str) -> None:
        """Add a fault that a training must not begin with."""
        self.faults.append(Fault(ERROR, code, self.study_id, text))

    def warning(self, code: str, text: str) -> None:
        """Add a fault that somebody should look at."""
        self.faults.append(Fault(WARNING, code, self.study_id, text))


@dataclass
class CheckedStudy:
    """Result of the check of one study.

    Attributes:
        study: Id of the study.
        patient: Id of its patient.
        series: Sequence to shape, spacing and thumbnail of the image; the thumbnail is encoded as
            text, which takes little memory.
        faults: Faults of the study.
        diseases: Codes of its diseases, None when unknown.
        findings: Codes of the findings that are stated, whether true or false.
        longest_row: Tokens of the longest instruction with its answer, None when no collator was
            given.
    """

    study: str
    patient: str = ""
    series: dict[str, dict[str, Any]] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    diseases: list[str] | None = None
    findings: list[str] = field(default_factory=list)
    longest_row: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the result as plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> CheckedStudy:
        """Build the result from what `to_json` returned."""
        faults = [Fault(**fault) for fault in data["faults"]]
        return cls(**{**data, "faults": faults})


def unreadable_study(study_id: str, error: CmrvlmError) -> CheckedStudy:
    """Return the result for a study that could not be read at all."""
    log = FaultLog(study_id)
    log.error("unreadable", error.without_folders())
    return CheckedStudy(study_id, faults=log.faults)
