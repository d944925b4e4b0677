"""Instructions and answers for tests, with defaults for what a test does not care about."""

from cmrvlm.instructions.answer import AnswerWithTruth
from cmrvlm.instructions.instruction import Instruction


def an_instruction(**given):
    defaults = {
        "study_id": "s",
        "task": "t",
        "language": "en",
        "prompt": "?",
        "answer": "",
    }
    return Instruction(**defaults | given)


def an_answer(instruction, text, mask=None, truth_mask=None, spacing_mm=None, **given):
    """An answer beside its truth."""
    return AnswerWithTruth(
        question=instruction,
        instruction=instruction,
        text=text,
        mask=mask,
        truth_mask=truth_mask,
        spacing_mm=spacing_mm,
        **given,
    )
