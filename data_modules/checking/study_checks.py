"""The check of one study before any training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cmrvlm.instructions.collate import Collator
from cmrvlm.instructions.instruction import Instruction
from cmrvlm.study.study import Series, Study
from cmrvlm.study.vocabulary import Term
from cmrvlm.tasks.context import leaked
from cmrvlm.tasks.mixture import Mixture
from data_modules.checking.faults import CheckedStudy, FaultLog
from data_modules.checking.label_checks import check_numbers, check_report
from data_modules.checking.series_checks import check_image, check_mask
from data_modules.checking.thumbnails import encode_thumbnail


def check_study(
    study: Study,
    mixture: Mixture | None = None,
    collator: Collator | None = None,
    label_map: Mapping[int, str] | None = None,
) -> CheckedStudy:
    """Check all that can be checked in one study.

    Args:
        study: Study as its source gives it.
        mixture: Instructions that are searched for leaks; None searches none.
        collator: Tokenizer and limits by which token rows are counted; None counts none.
        label_map: Structure by label value that the masks were read with, see `check_mask`.
    """
    log = FaultLog(study.study_id)
    for sequence, series in study.series.items():
        check_image(sequence, series, log)
        check_mask(sequence, series, log, label_map)
    check_numbers(study, log)
    check_report(study, log)

    instructions = [] if mixture is None else mixture.all(study)
    leak_terms = {} if mixture is None else {t.name: t.leak_terms for t in mixture.tasks.values()}
    for instruction in instructions:
        _check_leak(instruction, leak_terms[instruction.task], log)
    longest_row = None
    if collator is not None and instructions:
        longest_row = max(_row_length(instruction, collator) for instruction in instructions)
        if longest_row > collator.max_length:
            log.error("too_long", f"{longest_row} tokens, the model takes {collator.max_length}")

    diseases = study.labels.diseases
    findings = study.labels.findings
    return CheckedStudy(
        study=study.study_id,
        patient=study.patient_id,
        series={name: _summary(series) for name, series in study.series.items()},
        faults=log.faults,
        diseases=None if diseases is None else sorted(diseases),
        findings=sorted(code for code, flag in findings.items() if flag is not None),
        longest_row=longest_row,
    )


def _summary(series: Series) -> dict[str, Any]:
    """Return shape, spacing in mm and thumbnail of a series as plain data."""
    return {
        "shape": list(series.image.shape),
        "spacing_mm": [round(float(spacing), 4) for spacing in series.spacing_mm],
        "thumbnail": encode_thumbnail(series.image),
    }


def _check_leak(instruction: Instruction, terms: Mapping[str, Term] | None, log: FaultLog) -> None:
    """Log a prompt that names the right answer, where that is one of some terms."""
    if terms is None:
        return
    if instruction.truth and leaked(instruction.prompt, instruction.truth, terms):
        log.error("leak", f"the prompt of '{instruction.task}' names the answer")


def _row_length(instruction: Instruction, collator: Collator) -> int:
    """Count the tokens of a prompt, its answer and the end mark."""
    answer = collator.text_ids(instruction.answer)
    return len(collator.prompt_ids(instruction)) + len(answer) + 1
