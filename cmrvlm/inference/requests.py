"""Work out what a study without labels is asked: frames, structures, and questions in words."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from cmrvlm.errors import CmrvlmError
from cmrvlm.instructions.question import Question, whole_views
from cmrvlm.study.study import Study
from cmrvlm.study.vocabulary import LANGUAGES
from cmrvlm.tasks.base import Case, Task
from cmrvlm.tasks.diagnosis import DiseaseTask
from cmrvlm.tasks.mask_requests import structures_asked
from cmrvlm.tasks.reporting import ReportTask
from cmrvlm.tasks.segmentation import SegmentTask

FRAMES = ("all", "seen", "ed_es")
USER_TASK = "ask"
# What a study is asked in words, beside the user's own question.
WORD_TASKS = (ReportTask.name, DiseaseTask.name)


def check_language(language: str) -> None:
    """Refuse a language that no task speaks.

    Raises:
        CmrvlmError: It is unknown; the known ones are named.
    """
    if language not in LANGUAGES:
        raise CmrvlmError(
            f"unknown language '{language}'",
            field="language",
            remedy=f"Known: {', '.join(LANGUAGES)}.",
        )


def frames_wanted(frames: object, native: Study) -> dict[str, NDArray[np.bool_]]:
    """Return for each series (T,) the frames in which masks are wanted, whether the model sees them at first or not.

    Args:
        frames: `all`; `ed_es`, which are looked for among all; `seen` for those that the model sees at a time; or
            indices of frames of every cine, from 0. A series of one frame has its mask in any case.
        native: The study on its own grid.

    Raises:
        CmrvlmError: It is none of these, or a cine has no frame of that index.
    """
    lengths = {name: series.image.shape[1] for name, series in native.series.items()}
    if isinstance(frames, str) and frames in FRAMES:
        return {name: np.full(length, frames != "seen") for name, length in lengths.items()}
    indices = _frame_indices(frames)
    shortest = min((length for length in lengths.values() if length > 1), default=None)
    if shortest is not None and not 0 <= min(indices) <= max(indices) < shortest:
        raise CmrvlmError(
            f"frames are {indices}, the shortest cine has {shortest}",
            field="frames",
            remedy=f"Give numbers from 0 to {shortest - 1}.",
        )
    return {
        name: np.isin(np.arange(length), indices) | (length == 1)
        for name, length in lengths.items()
    }


def _frame_indices(frames: object) -> list[int]:
    """Return indices of frames as given.

    Raises:
        CmrvlmError: They are no list of whole numbers.
    """
    is_list = isinstance(frames, Sequence) and not isinstance(frames, str) and bool(frames)
    if not is_list or not all(type(index) is int for index in frames):  # type: ignore[attr-defined]
        raise CmrvlmError(
            f"no choice of frames: {frames}",
            field="frames",
            remedy=f"Use {', '.join(FRAMES)} or numbers such as [0,8].",
        )
    return list(frames)  # type: ignore[call-overload]


def word_questions(
    study: Study,
    language: str,
    user_question: str | None,
    tasks: Iterable[Task],
    word_tasks: Collection[str],
) -> list[Question]:
    """Return the questions in words about a study: report, disease, and the user's own.

    A user's question that wants masks is not among them: `structures_asked` finds those.

    Args:
        study: On the model's grid.
        language: `en` or `zh`.
        user_question: Question in a user's words, or None.
        tasks: Tasks of the run, whose report may have an outline of its own.
        word_tasks: Which of `WORD_TASKS` are asked.
    """
    case = Case(whole_views(list(study.series)))
    report = next((task for task in tasks if isinstance(task, ReportTask)), ReportTask())
    questions = [
        task.make_question(study, case, language)
        for task in (report, DiseaseTask())
        if task.name in word_tasks
    ]
    if user_question and not structures_asked(user_question):
        questions.append(
            Question(
                study_id=study.study_id,
                task=USER_TASK,
                language=language,
                prompt=user_question,
                views=case.views,
            )
        )
    return questions


def segment_tasks(tasks: Iterable[Task], sequences: Collection[str]) -> list[SegmentTask]:
    """Return the tasks that ask for masks on some sequences."""
    return [task for task in tasks if isinstance(task, SegmentTask) and task.sequence in sequences]


def check_structures(structures: Collection[str], tasks: Sequence[SegmentTask]) -> None:
    """Refuse structures that no task asks for.

    Raises:
        CmrvlmError: There is one; those that can be asked for are named.
    """
    known = sorted({task.structure for task in tasks})
    for structure in structures:
        if structure not in known:
            raise CmrvlmError(
                f"the run does not segment '{structure}' on the series of this study",
                field="structures",
                remedy=f"It segments {', '.join(known) or 'nothing here'}.",
            )
