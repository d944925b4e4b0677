"""Make samples of the training from images without a heart, of which nothing can be assessed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cmrvlm.instructions.instruction import Instruction
from cmrvlm.reports.writer import not_assessed
from cmrvlm.study.study import Study
from cmrvlm.transforms.foreign import FOREIGN, foreign_study
from cmrvlm.transforms.intensity import PercentileIntensity
from cmrvlm.transforms.preprocessing import Preprocessing


def foreign_sample(
    study: Study,
    instructions: Sequence[Instruction],
    rng: np.random.Generator,
    intensity: PercentileIntensity,
) -> tuple[Study, list[Instruction]]:
    """Return a study of images without a heart, with the questions that were drawn about the true one.

    All series that the questions show become images of one kind; the others are left out. Nothing
    is known of such a study, so that no read-out has a target. Questions about text alone are left
    out, for they can be assessed; where there are no others, the sample stays as it is.

    Args:
        study: Study on the model's grid.
        instructions: What was drawn about it.
        rng: Generator of the kind and of its images.
        intensity: Step that scales grey values as in the run's preprocessing.
    """
    asked = [instruction for instruction in instructions if instruction.views]
    if not asked:
        return study, list(instructions)
    read = {view.sequence for instruction in asked for view in instruction.views}
    shown = study.with_series({name: one for name, one in study.series.items() if name in read})
    kind = list(FOREIGN)[int(rng.integers(len(FOREIGN)))]
    foreign = intensity(foreign_study(shown, kind, rng))
    return foreign, [_not_assessable(instruction) for instruction in asked]


def _not_assessable(instruction: Instruction) -> Instruction:
    """Return a question with the answer that nothing can be assessed, and nothing of its right one.

    There is no region, and so no mask in the losses: the answer asks the mask decoder for none. An
    empty mask would be untrue of shuffled tissue, in which pieces of ventricles lie.
    """
    return replace(
        instruction, answer=_answer(instruction), truth=None, values={}, source=None, region=None
    )


def _answer(instruction: Instruction) -> str:
    """Return the answer that nothing can be assessed, below each heading that the answer must have."""
    text = not_assessed(instruction.language)
    if not instruction.outline:
        return text
    gap = " " if instruction.language == "en" else ""
    return "".join(f"{heading}{gap}{text}" for heading in instruction.outline)


def intensity_of(preprocessing: Preprocessing) -> PercentileIntensity:
    """Return the step of a preprocessing that scales grey values, or one of usual settings."""
    for step in preprocessing.steps.values():
        if isinstance(step, PercentileIntensity):
            return step
    return PercentileIntensity()
