"""Write what a run says of one study: report, masks, measurements from them, pictures, and an answer."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cmrvlm.inference.label_maps import at_ed_and_es, check_coding, recoded
from cmrvlm.inference.measuring import measure_masks
from cmrvlm.inference.panels import study_panel
from cmrvlm.inference.requests import USER_TASK, check_language, frames_wanted
from cmrvlm.inference.study_answering import AnsweredStudy, Frames, LabelMaps, StudyAnswerer
from cmrvlm.inference.texts import report_texts, text_of_structures
from cmrvlm.quantification.summary import PICTURES
from cmrvlm.study.atomic_files import write_json
from cmrvlm.study.files import image_files, write_mask
from cmrvlm.study.orientation import LAYOUT, is_oriented
from cmrvlm.study.study import Series, Study
from cmrvlm.study.vocabulary import SEQUENCES

log = logging.getLogger(__name__)

PREDICTION = "prediction.json"
_NOT_ORIENTED = "as stored: the file has no scanner orientation"


def _mask_name(sequence: str) -> str:
    return f"{sequence}_mask.nii.gz"


def _panel_name(sequence: str) -> str:
    return "panel.png" if sequence == "sax" else f"panel_{sequence}.png"


def check_settings(language: str, mask_values: Mapping[str, Any] | None) -> None:
    """Refuse settings that no study is needed to judge, before a model is loaded.

    Raises:
        CmrvlmError: The language or the coding of masks is unknown.
    """
    check_language(language)
    check_coding(mask_values)


def write_prediction(
    answerer: StudyAnswerer,
    study: Path,
    out: Path,
    *,
    language: str,
    question: str | None,
    frames: Frames,
    mask_values: Mapping[str, int] | None,
    sequence: str,
) -> dict[str, Any]:
    """Write a prediction into a folder. See `CMRVLM.predict`."""
    check_settings(language, mask_values)
    native = answerer.read(study, sequence)
    frames_wanted(frames, native)
    _clear(out)
    answered = answerer.answer_study(native, language=language, question=question, frames=frames)
    series = answered.measured_series()
    written = answered.label_maps
    if frames == "ed_es":
        written = {name: at_ed_and_es(one) for name, one in series.items()}
    _write_masks(series, written, image_files(study, sequence), out, mask_values)
    result = _texts(answered, written, question, language)
    result["layout"] = _layouts(native)
    if frames != "all":
        result["mask_frames"] = {
            name: list(replace(native.series[name], mask=labels).known_frames())
            for name, labels in written.items()
        }
    measured = measure_masks(
        series,
        native.labels.demographics,
        answered.structures_on("lge"),
        out,
        find_phases=isinstance(frames, str),
    )
    if "sax" in answered.label_maps:
        result["from_masks"] = measured.from_masks
    if "lge" in answered.label_maps:
        result["from_lge_masks"] = measured.from_lge_masks
    write_json(out / PREDICTION, result)
    return result


def _clear(out: Path) -> None:
    """Make the folder, without files of an earlier prediction: they could be taken for this study's."""
    out.mkdir(parents=True, exist_ok=True)
    names = [PREDICTION, *PICTURES]
    for sequence in SEQUENCES:
        names += [_mask_name(sequence), _panel_name(sequence)]
    for name in names:
        (out / name).unlink(missing_ok=True)


def _write_masks(
    measured: Mapping[str, Series],
    written: LabelMaps,
    images: Mapping[str, Path],
    out: Path,
    mask_values: Mapping[str, int] | None,
) -> None:
    """Write each label map as a NIfTI file like the image's, and a picture of it."""
    for name, series in measured.items():
        labels = recoded(written[name], mask_values)
        write_mask(out / _mask_name(name), labels, images[name], name)
        study_panel(series, out / _panel_name(name))


def _texts(
    answered: AnsweredStudy, written: LabelMaps, question: str | None, language: str
) -> dict[str, Any]:
    """Return what is said of a study in words, with the answer to the user's question."""
    result = report_texts(answered.by_task("report"), answered.by_task("disease"))
    if question:
        text = text_of_structures(question, answered.answers, written, language)
        result["question"] = question
        result["answer"] = text or answered.by_task(USER_TASK).text
    return result


def _layouts(study: Study) -> dict[str, str]:
    """Return the layout in which each series was read, and warn of files without an orientation."""
    layouts = {}
    for name, series in study.series.items():
        layouts[name] = LAYOUT
        if not is_oriented(series.affine):
            layouts[name] = _NOT_ORIENTED
            log.warning(
                "%s: the file has no scanner orientation, rows, columns and slices stay as stored",
                name,
            )
    return layouts
