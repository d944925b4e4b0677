"""What a prompt may say of the patient: an allow-list, so that no history or diagnosis gets into a question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from cmrvlm.errors import CmrvlmError
from cmrvlm.reports.reader import terms_named
from cmrvlm.study.study import Study
from cmrvlm.study.vocabulary import Term
from cmrvlm.tasks.base import Instruction

FIELDS = {
    "age_years": ("{:.0f} years", "{:.0f}岁"),
    "sex": ("{}", "{}"),
    "height_cm": ("{:.0f} cm", "身高{:.0f}厘米"),
    "weight_kg": ("{:.0f} kg", "体重{:.0f}公斤"),
}
_SEX = {"m": ("male", "男性"), "f": ("female", "女性")}


def check_fields(fields: Sequence[str]) -> tuple[str, ...]:
    """The fields, if all of them are allowed.

    Raises:
        CmrvlmError: One is not; free text and diagnoses never are.
    """
    unknown = [name for name in fields if name not in FIELDS]
    if unknown:
        raise CmrvlmError(
            f"'{unknown[0]}' may not enter a prompt",
            field="mix.context",
            remedy=f"Allowed: {', '.join(FIELDS)}. Anything else could tell the answer.",
        )
    return tuple(fields)


def with_context(instruction: Instruction, study: Study, fields: Sequence[str]) -> Instruction:
    """The instruction with a line about the patient before the question; unknown fields are left out."""
    chinese = instruction.language == "zh"
    parts = []
    for name in fields:
        value = study.labels.demographics.get(name)
        if value is not None:
            shown = _SEX[str(value)][chinese] if name == "sex" else value
            parts.append(FIELDS[name][chinese].format(shown))
    if not parts:
        return instruction
    line = f"患者：{'，'.join(parts)}。" if chinese else f"Patient: {', '.join(parts)}. "
    return replace(instruction, prompt=line + instruction.prompt)


def leaked(text: str, truth: str | None, terms: Mapping[str, Term]) -> list[str]:
    """Codes of the right answer (`+` joins them) that a text names by name or synonym, in either language."""
    return (
        []
        if truth is None
        else [code for code in terms_named(text, terms) if code in truth.split("+")]
    )
