"""Keep the answers of an evaluation on the disk, so that it goes on where it stopped.

Of a mask its scores are kept. Answers are read back for one task at a time: memory does not grow
with the number of conditions, nor with the size of images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import TypeAdapter

from cmrvlm.evaluation.conditions import Condition
from cmrvlm.evaluation.parts import Parts
from cmrvlm.instructions.answer import AnswerWithTruth
from cmrvlm.instructions.instruction import Instruction

# An answer to a question; or a study that failed, or has no question, which has no task.
_SCHEMA = pa.schema(
    [
        ("study", pa.string()),
        ("patient", pa.string()),
        ("task", pa.string()),
        ("question", pa.string()),
        ("instruction", pa.string()),
        ("text", pa.string()),
        ("truncated", pa.bool_()),
        ("lowercase", pa.bool_()),
        ("measures", pa.map_(pa.string(), pa.float64())),
        ("read_outs", pa.map_(pa.string(), pa.list_(pa.float32()))),
        ("changed", pa.bool_()),
        ("failure", pa.string()),
    ]
)
_INSTRUCTION: TypeAdapter[Instruction] = TypeAdapter(Instruction)
# Study, task and key of a question.
Identity = tuple[str, str, str]


@dataclass
class Asked:
    """Answers under one condition.

    Attributes:
        condition: The condition.
        answers: The answers, study by study.
        patients: Patient of each answer's study.
        changed: For each answer whether the truth of the same question on the images shown is
            another; only under the probe `swapped`, None where that study has no such question.
    """

    condition: Condition
    answers: list[AnswerWithTruth] = field(default_factory=list)
    patients: list[str] = field(default_factory=list)
    changed: list[bool | None] = field(default_factory=list)


class KeptAnswers:
    """Answers under one condition, in a folder.

    Args:
        folder: Folder for the answers under all conditions.
        condition: The condition.
        writer: Number of the process that adds answers.
    """

    def __init__(self, folder: Path, condition: Condition, writer: int = 0) -> None:
        self.condition = condition
        self._parts = Parts(folder / condition.name, _SCHEMA, writer)

    def add(
        self,
        study_id: str,
        patient_id: str,
        answers: Sequence[AnswerWithTruth],
        changed: Sequence[bool | None],
    ) -> None:
        """Add all answers about a study; one without any question counts as asked, too."""
        of_study = {"study": study_id, "patient": patient_id}
        rows = [
            of_study | _row_of(answer, is_changed)
            for answer, is_changed in zip(answers, changed, strict=True)
        ]
        self._parts.add(rows or [of_study])

    def add_failure(self, study_id: str, reason: str) -> None:
        """Add a study that could not be asked."""
        self._parts.add([{"study": study_id, "failure": reason}])

    def save(self) -> None:
        """Write what was added."""
        self._parts.save()

    def save_when_due(self) -> None:
        """Write what was added, if the last time was long ago."""
        self._parts.save_when_due()

    def studies(self) -> set[str]:
        """Return the studies that were asked, those that failed among them."""
        return set(self._parts.read(["study"])["study"].to_pylist())

    def failures(self) -> dict[str, str]:
        """Return study to reason, for those that failed."""
        failed = self._parts.read(["study", "failure"], pc.field("failure").is_valid())
        return dict(zip(*(column.to_pylist() for column in failed.columns), strict=True))

    def identities(self) -> set[Identity]:
        """Return the identities of all questions that were asked."""
        questions = self._parts.read(["study", "task", "question"], pc.field("task").is_valid())
        return set(zip(*(column.to_pylist() for column in questions.columns), strict=True))

    def texts(self, task: str) -> dict[Identity, str]:
        """Return the text of each answer to a task by the identity of its question."""
        columns = ["study", "task", "question", "text"]
        kept = self._parts.read(columns, pc.field("task") == task)
        *identity, texts = (column.to_pylist() for column in kept.columns)
        return dict(zip(zip(*identity, strict=True), texts, strict=True))

    def of_task(self, task: str, study_ids: Sequence[str]) -> Asked:
        """Return the answers to one task.

        Args:
            task: Name of the task.
            study_ids: Studies in the order in which their answers are to come.
        """
        position_of = {study_id: position for position, study_id in enumerate(study_ids)}
        rows = self._parts.read(_SCHEMA.names, pc.field("task") == task).to_pylist()
        # Answers about a study lie together, in the order in which they were asked.
        rows.sort(key=lambda row: position_of[row["study"]])
        asked = Asked(self.condition)
        for row in rows:
            asked.answers.append(_answer_of(row))
            asked.patients.append(row["patient"])
            asked.changed.append(row["changed"])
        return asked


def _row_of(answer: AnswerWithTruth, is_changed: bool | None) -> dict[str, Any]:
    """Return an answer as a row of `_SCHEMA`, without its masks."""
    instruction = answer.instruction
    return {
        "task": instruction.task,
        "question": instruction.key,
        "instruction": _INSTRUCTION.dump_json(instruction).decode(),
        "text": answer.text,
        "truncated": answer.truncated,
        "lowercase": answer.lowercase,
        "measures": dict(answer.measures),
        "read_outs": {name: values.tolist() for name, values in answer.read_outs.items()},
        "changed": is_changed,
    }


def _answer_of(row: Mapping[str, Any]) -> AnswerWithTruth:
    """Return the answer that a row holds."""
    instruction = _INSTRUCTION.validate_json(row["instruction"])
    return AnswerWithTruth(
        question=instruction,
        instruction=instruction,
        text=row["text"],
        truncated=row["truncated"],
        lowercase=row["lowercase"],
        measures=dict(row["measures"]),
        read_outs={name: np.array(values, np.float32) for name, values in row["read_outs"]},
    )
