"""Checks of a study's numbers and report."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from cmrvlm.quantification.volumes import why_no_volume
from cmrvlm.study.measurements import FEWEST_SLICES
from cmrvlm.study.study import Series, Study
from cmrvlm.study.vocabulary import LANGUAGES, PHASES, STRUCTURES
from data_modules.checking.faults import FaultLog
from data_modules.sources.masks import measure_masks

# Outside of these units, labels or frames are likely to be wrong; they are no normal ranges.
_PLAUSIBLE = {
    "lvef_percent": (5.0, 85.0),
    "rvef_percent": (5.0, 85.0),
    "lvedv_ml": (30.0, 600.0),
    "rvedv_ml": (30.0, 600.0),
}
# Largest difference between the ejection fraction that is stated and that of the masks.
_EF_GAP_PERCENT = 15.0
_IDENTIFYING = {
    "a date": re.compile(
        r"\b(19|20)\d\d[-/.年]\s?\d{1,2}[-/.月]\s?\d{1,2}|\b\d{1,2}[./]\d{1,2}[./](19|20)\d\d\b"
    ),
    "a telephone number": re.compile(r"(?<!\d)1[3-9]\d{9}(?!\d)|\+\d{2}[\d -]{8,}"),
    "an identity number": re.compile(r"(?<!\d)\d{17}[\dXx](?!\d)"),
    "an e-mail address": re.compile(r"[\w.]+@[\w-]+\.\w+"),
    "a named field": re.compile(
        r"\b(name|mrn|patient id|date of birth|dob)\s*[:：]|(姓名|住院号|病历号|身份证)",
        re.IGNORECASE,
    ),
}
# Characters that UTF-8 read as Latin-1 or GBK, or the other way round, leaves behind.
_MOJIBAKE = re.compile("�|Ã[\x80-\xbf]|锟斤拷|â€")


def check_numbers(study: Study, log: FaultLog) -> None:
    """Log numbers that are not plausible, and those in which labels and masks disagree.

    Args:
        study: Study with its measurements, and perhaps masks at ED and ES on the short axis.
        log: Log that faults are added to.
    """
    sax = study.series.get("sax")
    counted: dict[str, float] = {}
    if sax is not None and sax.mask is not None and set(PHASES) <= set(sax.phases):
        counted = measure_masks(sax)
        _check_volumes(sax, counted, log)

    stated = study.labels.measurements
    _check_plausible("stated", stated, log)
    _check_plausible("counted", counted, log)
    if "lvef_percent" in stated and "lvef_percent" in counted:
        _check_ejection_fraction(stated["lvef_percent"], counted["lvef_percent"], log)


def check_report(study: Study, log: FaultLog) -> None:
    """Log reports that are empty, wrongly encoded, or that seem to tell who the patient is.

    Args:
        study: Study with its report in one language or several.
        log: Log that faults are added to.
    """
    for language in LANGUAGES:
        sections = study.labels.report.get(language)
        if sections is None:
            continue
        text = " ".join(sections.values())
        if not text.strip():
            log.warning("empty_report", f"the report in '{language}' is empty")
        if _MOJIBAKE.search(text):
            log.error("encoding", f"the report in '{language}' was read in a wrong encoding")
        for description, pattern in _IDENTIFYING.items():
            if pattern.search(text):
                log.error("identifier", f"the report in '{language}' seems to hold {description}")


def _check_volumes(sax: Series, counted: Mapping[str, float], log: FaultLog) -> None:
    """Log phases that are swapped, and phases whose volume cannot be counted."""
    if counted.get("lvesv_ml", 0.0) >= counted.get("lvedv_ml", np.inf):
        log.error("phases", "the left ventricle is not larger at ED than at ES")
    if sax.image.shape[0] < FEWEST_SLICES:
        # The check of the image has said so already.
        return
    for phase in PHASES:
        reason = why_no_volume(sax, (STRUCTURES["lv"],), sax.phases[phase])
        if reason is not None:
            log.warning(
                "no_volume",
                f"the left ventricle cannot be counted at {phase.upper()}: {reason}",
            )


def _check_plausible(source: str, measurements: Mapping[str, float], log: FaultLog) -> None:
    """Log measurements that no heart has."""
    for name, value in measurements.items():
        low, high = _PLAUSIBLE.get(name, (-np.inf, np.inf))
        if not low <= value <= high:
            log.warning("implausible", f"{source} {name} is {value:.0f}")


def _check_ejection_fraction(stated: float, counted: float, log: FaultLog) -> None:
    """Log an ejection fraction in % that is far from that of the masks."""
    gap_percent = abs(stated - counted)
    if gap_percent > _EF_GAP_PERCENT:
        log.warning("ef_gap", f"EF is stated as {stated:.0f} % and counted as {counted:.0f} %")
