"""Add facts about the patient to prompts, from an allow-list, so that no diagnosis gets into a question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from cmrvlm.errors import CmrvlmError
from cmrvlm.instructions.instruction import Instruction
from cmrvlm.reports.reader import terms_named
from cmrvlm.study.study import Study
from cmrvlm.study.vocabulary import LANGUAGES, Term

FIELDS = {
    "age_years": ("{:.0f} years", "{:.0f}岁"),
    "sex": ("{}", "{}"),
    "height_cm": ("{:.0f} cm", "身高{:.0f}厘米"),
    "weight_kg": ("{:.0f} kg", "体重{:.0f}公斤"),
}
_SEX = {"m": ("male", "男性"), "f": ("female", "女性")}


def check_fields(fields: Sequence[str]) -> tuple[str, ...]:
    """Return the fields, if all of them are allowed.

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
    """Return the instruction with a line about the patient before the question; unknown fields are left out."""
    facts = []
    for name in fields:
        value = study.labels.demographics.get(name)
        if value is not None:
            facts.append(_fact(name, value, instruction.language))
    if not facts:
        return instruction
    if instruction.language == "zh":
        line = f"患者：{'，'.join(facts)}。"
    else:
        line = f"Patient: {', '.join(facts)}. "
    return replace(instruction, prompt=line + instruction.prompt)


def _fact(name: str, value: float | str, language: str) -> str:
    """Return a fact about the patient in words."""
    column = LANGUAGES.index(language)
    if name == "sex":
        value = _SEX[str(value)][column]
    return FIELDS[name][column].format(value)


def leaked(text: str, truth: str | None, terms: Mapping[str, Term]) -> list[str]:
    """Return the codes of the right answer that a text names by name or synonym, in either language.

    Args:
        text: Prompt.
        truth: Codes of the right answer, joined with `+`; None when it is unknown.
        terms: Code to term.
    """
    if truth is None:
        return []
    codes = truth.split("+")
    return [code for code in terms_named(text, terms) if code in codes]
