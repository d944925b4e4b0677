"""What is wrong with a data set, found before any training: one study at a time, and over all of them."""

from __future__ import annotations

import base64
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmrvlm.errors import CmrvlmError
from cmrvlm.instructions.collate import Collator
from cmrvlm.quantification.ventricles import why_no_volume
from cmrvlm.study.measurements import FEWEST_SLICES
from cmrvlm.study.study import Series, Study
from cmrvlm.study.vocabulary import CINE, DISEASES, FINDINGS, LANGUAGES, SEQUENCES, STRUCTURES
from cmrvlm.tasks.context import leaked
from cmrvlm.tasks.mixture import Mixture
from data_modules.sources.mask_checks import (
    bright_cavity_fraction,
    displaced_slices,
    find_label_error,
)
from data_modules.sources.masks import measure_masks
from data_modules.split import Split

ERROR, WARNING = "error", "warning"
# Outside of these something is likely to be wrong with units, labels or frames; they are no normal ranges.
PLAUSIBLE = {
    "in_plane_mm": (0.4, 4.0),
    "slice_mm": (2.0, 25.0),
    "lvef_percent": (5.0, 85.0),
    "rvef_percent": (5.0, 85.0),
    "lvedv_ml": (30.0, 600.0),
    "rvedv_ml": (30.0, 600.0),
}
# Two files of one EMIDEC patient correlate to 0.99999, no two of 25 ACDC patients to more than 0.74.
_SIDE, _SAME = 16, 0.995
_RIGHT_ANGLE = 1e-4  # cosine; rounding of a sound affine stays far below
# Of a cavity, than the wall's median: at ED 25 ACDC patients have 0.82 or more, and 0.53 or less with swapped axes.
_LEAST_BRIGHTER = 0.7
_EF_GAP_PERCENT = 15.0  # between stated and counted
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
_MOJIBAKE = re.compile("�|Ã[\x80-\xbf]|锟斤拷|â€")


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong.

    Attributes:
        level: `error` or `warning`.
        code: Short name of the kind.
        study: Id of the study, empty for the whole set.
        text: What it is, in words; never a value of a report.
    """

    level: str
    code: str
    study: str
    text: str


@dataclass
class Checked:
    """What is known of one study after its check.

    Attributes:
        study: Its id.
        patient: Its patient.
        series: Sequence to shape, spacing and thumbnail of the image, the latter as text that takes little memory.
        faults: What is wrong.
        diseases: Codes, None when unknown.
        findings: Codes that are stated.
        longest_row: Most tokens of an instruction with its answer, None when no collator was given.
    """

    study: str
    patient: str = ""
    series: dict[str, dict[str, Any]] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    diseases: list[str] | None = None
    findings: list[str] = field(default_factory=list)
    longest_row: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Checked:
        """Inverse of `to_json`."""
        return cls(**{**data, "faults": [Fault(**one) for one in data["faults"]]})


def unreadable(study_id: str, error: CmrvlmError) -> Checked:
    """A study that could not be read at all."""
    return Checked(study_id, faults=[Fault(ERROR, "unreadable", study_id, error.without_folders())])


def check_study(
    study: Study, mixture: Mixture | None = None, collator: Collator | None = None
) -> Checked:
    """All that can be said of one study.

    Args:
        study: As its source gives it.
        mixture: Instructions, for leaks; None asks nothing.
        collator: Tokenizer and limits, for the length of rows; None counts nothing.
    """
    found = Checked(study.study_id, study.patient_id)
    found.diseases = None if study.labels.diseases is None else sorted(study.labels.diseases)
    found.findings = sorted(
        code for code, flag in study.labels.findings.items() if flag is not None
    )

    def fault(level: str, code: str, text: str) -> None:
        found.faults.append(Fault(level, code, study.study_id, text))

    for name, series in study.series.items():
        found.series[name] = {
            "shape": list(series.image.shape),
            "spacing_mm": [round(float(one), 4) for one in series.spacing_mm],
            "thumbnail": base64.b64encode(
                thumbnail(series.image).astype(np.float16).tobytes()
            ).decode(),
        }
        for level, code, text in (*_image_faults(name, series), *_mask_faults(name, series)):
            fault(level, code, text)
    for level, code, text in (*_number_faults(study), *_report_faults(study)):
        fault(level, code, text)
    if mixture is not None:
        asked = mixture.all(study)
        for one in asked:
            terms = DISEASES if one.task in ("disease", "summary") else None
            if terms and one.case.truth and leaked(one.prompt, one.case.truth, terms):
                fault(ERROR, "leak", f"the prompt of '{one.task}' names the answer")
        if collator is not None and asked:
            found.longest_row = max(
                len(collator.prompt_ids(one)) + len(collator.tokenizer.encode(one.answer)) + 1
                for one in asked
            )
            if found.longest_row > collator.max_length:
                fault(
                    ERROR,
                    "too_long",
                    f"{found.longest_row} tokens, the model takes {collator.max_length}",
                )
    return found


Found = list[tuple[str, str, str]]


def _image_faults(name: str, series: Series) -> Found:
    image, faults = np.asarray(series.image), []
    if not np.isfinite(image).all():
        faults.append((ERROR, "not_finite", f"{name} holds values that are no numbers"))
    elif image.max() == image.min():
        faults.append((ERROR, "constant", f"{name} has one grey value everywhere"))
    else:
        flat = [t for t in range(image.shape[1]) if image[:, t].max() == image[:, t].min()]
        if flat:
            faults.append(
                (WARNING, "constant_frame", f"{name}: frames {flat[:5]} have one grey value")
            )
    slice_mm, *in_plane = (float(one) for one in series.spacing_mm)
    for key, value in (
        ("slice_mm", slice_mm),
        ("in_plane_mm", max(in_plane)),
        ("in_plane_mm", min(in_plane)),
    ):
        low, high = PLAUSIBLE[key]
        if not low <= value <= high:
            faults.append(
                (
                    WARNING,
                    "spacing",
                    f"{name}: {value:g} mm is no usual {key.removesuffix('_mm')} spacing",
                )
            )
    axes = series.affine[:3, :3] / np.linalg.norm(series.affine[:3, :3], axis=0)
    if np.abs(axes.T @ axes - np.eye(3)).max() > _RIGHT_ANGLE:
        faults.append((WARNING, "oblique", f"{name}: the axes are not at right angles"))
    if series.slice_places_mm is not None:
        gaps = np.diff(series.slice_places_mm).round(1).tolist()
        faults.append((WARNING, "irregular", f"{name}: slices are {gaps} mm apart"))
    if name == "sax" and image.shape[0] < FEWEST_SLICES:
        faults.append(
            (
                WARNING,
                "few_slices",
                f"{name} has {image.shape[0]} slices: no volume follows from them",
            )
        )
    return faults


def _mask_faults(name: str, series: Series) -> Found:
    if series.mask is None:
        return []
    faults: Found = []
    known = sorted(int(one) for one in np.unique(series.mask))
    odd = [value for value in known if value not in STRUCTURES.values() and value != 255]
    if odd:
        faults.append(
            (ERROR, "label_values", f"{name}: mask values {odd} are none of the project's")
        )
    if not series.annotated_frames():
        faults.append((WARNING, "empty_mask", f"{name}: the mask holds nothing"))
        return faults
    for frame in series.annotated_frames():
        wrong = find_label_error(np.asarray(series.mask[:, frame]))
        if wrong:
            faults.append((WARNING, "anatomy", f"{name}, frame {frame}: {wrong}"))
            break
    share = bright_cavity_fraction(series, series.annotated_frames()[0])
    if name in CINE and share is not None and share < _LEAST_BRIGHTER:
        text = f"{name}: {share:.0%} of a cavity is brighter than the wall; does the mask lie on the image?"
        faults.append((WARNING, "off_image", text))
    for index, off_mm in displaced_slices(series, series.annotated_frames()[0]).items():
        faults.append(
            (WARNING, "displaced", f"{name}: slice {index} lies {off_mm:.0f} mm beside the axis")
        )
    return faults


def _number_faults(study: Study) -> Found:
    faults: Found = []
    sax = study.series.get("sax")
    counted: dict[str, float] = {}
    if sax is not None and sax.mask is not None and {"ed", "es"} <= set(sax.phases):
        counted = measure_masks(sax)
        if counted.get("lvesv_ml", 0.0) >= counted.get("lvedv_ml", np.inf):
            faults.append((ERROR, "phases", "the left ventricle is not larger at ED than at ES"))
        for phase in ("ed", "es"):
            reason = why_no_volume(sax, (STRUCTURES["lv"],), sax.phases[phase])
            if reason is not None and sax.image.shape[0] >= FEWEST_SLICES:
                faults.append(
                    (
                        WARNING,
                        "no_volume",
                        f"the left ventricle cannot be counted at {phase.upper()}: {reason}",
                    )
                )
    for source, values in (("stated", study.labels.measurements), ("counted", counted)):
        for name, value in values.items():
            low, high = PLAUSIBLE.get(name, (-np.inf, np.inf))
            if not low <= value <= high:
                faults.append((WARNING, "implausible", f"{source} {name} is {value:.0f}"))
    stated = study.labels.measurements.get("lvef_percent")
    if (
        stated is not None
        and "lvef_percent" in counted
        and abs(stated - counted["lvef_percent"]) > _EF_GAP_PERCENT
    ):
        faults.append(
            (
                WARNING,
                "ef_gap",
                f"EF is stated as {stated:.0f} % and counted as {counted['lvef_percent']:.0f} %",
            )
        )
    return faults


def _report_faults(study: Study) -> Found:
    faults: Found = []
    for language in LANGUAGES:
        sections = study.labels.report.get(language)
        if sections is None:
            continue
        text = " ".join(sections.values())
        if not text.strip():
            faults.append((WARNING, "empty_report", f"the report in '{language}' is empty"))
        if _MOJIBAKE.search(text):
            faults.append(
                (ERROR, "encoding", f"the report in '{language}' was read in a wrong encoding")
            )
        for what, pattern in _IDENTIFYING.items():
            if pattern.search(text):
                faults.append(
                    (ERROR, "identifier", f"the report in '{language}' seems to hold {what}")
                )
    return faults


def check_set(checked: Sequence[Checked], split: Split | None) -> list[Fault]:
    """What is wrong over several studies: one image under two ids, one patient in two parts."""
    faults = []
    for name in SEQUENCES:
        own = [one for one in checked if name in one.series]
        texts = [one.series[name]["thumbnail"] for one in own]
        for first, second in same_images(
            [np.frombuffer(base64.b64decode(one), np.float16) for one in texts]
        ):
            text = f"{name} is the same image, or nearly so, as in {own[second].study}"
            faults.append(Fault(WARNING, "same_image", own[first].study, text))
    if split is not None:
        patient = {one.study: one.patient for one in checked}
        part_of: dict[str, str] = {}
        for part, studies in split.items():
            for study in studies:
                other = part_of.setdefault(patient.get(study, study), part)
                if other != part:
                    faults.append(
                        Fault(
                            ERROR,
                            "two_parts",
                            study,
                            f"its patient is in '{other}' and in '{part}'",
                        )
                    )
    return faults


def thumbnail(image: NDArray[np.floating]) -> NDArray[np.float64]:
    """(2 * 16 * 16,) standardised block means over time of the basal and of the apical half; 0 when constant."""
    still = np.asarray(image, dtype=np.float64).mean(axis=1)  # (Z, H, W)
    half = len(still) // 2
    parts = [
        [
            [block.mean() for block in np.array_split(band, _SIDE, axis=1)]
            for band in np.array_split(plane, _SIDE)
        ]
        for plane in (still[: max(1, half)].mean(axis=0), still[half:].mean(axis=0))
    ]
    flat = np.array(parts).ravel()
    spread = flat.std()
    return np.asarray((flat - flat.mean()) / spread if spread > 0 else np.zeros_like(flat))


def same_images(
    thumbnails: Sequence[NDArray[np.float16]], chunk: int = 1024
) -> list[tuple[int, int]]:
    """Pairs of images whose thumbnails correlate more than those of different patients do."""
    if not thumbnails:
        return []
    table = np.stack(thumbnails).astype(np.float32)
    pairs = []
    for start in range(0, len(table), chunk):
        alike = table[start : start + chunk] @ table.T / table.shape[1]
        for row, column in np.argwhere(alike > _SAME):
            if start + row < column:
                pairs.append((start + int(row), int(column)))
    return pairs


def counts(checked: Sequence[Checked]) -> dict[str, dict[str, int]]:
    """Studies by sequences, diseases and stated findings."""
    together = Counter(
        "+".join(name for name in SEQUENCES if name in one.series) or "none" for one in checked
    )
    diseases = Counter(code for one in checked for code in (one.diseases or ()))
    unknown = sum(one.diseases is None for one in checked)
    stated = Counter(code for one in checked for code in one.findings)
    return {
        "sequences": dict(together.most_common()),
        "diseases": {code: diseases[code] for code in DISEASES} | {"unknown": unknown},
        "findings stated": {code: stated[code] for code in FINDINGS},
    }
