"""Write what a run says of one study: report, masks, measurements from them, pictures, and an answer."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from cmrvlm.errors import CmrvlmError
from cmrvlm.inference.label_maps import at_ed_and_es, check_coding, recoded
from cmrvlm.inference.measuring import measure_masks
from cmrvlm.inference.panels import study_panel
from cmrvlm.inference.requests import USER_TASK, check_language, frames_wanted
from cmrvlm.inference.study_answering import AnsweredStudy, Frames, LabelMaps, StudyAnswerer
from cmrvlm.inference.texts import report_texts, text_of_structures
from cmrvlm.inference.unlike_training import text_of_not_assessed
from cmrvlm.quantification.summary import PICTURES
from cmrvlm.study.atomic_files import write_json
from cmrvlm.study.evidence import Evidence
from cmrvlm.study.files import image_files, write_mask
from cmrvlm.study.orientation import LAYOUT, is_oriented
from cmrvlm.study.reading_settings import ReadingSettings
from cmrvlm.study.study import Study
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
    images = image_files(study, sequence)
    with _replaced_when_whole(out) as folder:
        answered = answerer.answer_study(
            native, language=language, question=question, frames=frames
        )
        return _write_files(
            answered, images, folder, language, question, frames, mask_values, answerer.files
        )


def _write_files(
    answered: AnsweredStudy,
    images: Mapping[str, Path],
    folder: Path,
    language: str,
    question: str | None,
    frames: Frames,
    mask_values: Mapping[str, int] | None,
    files: ReadingSettings,
) -> dict[str, Any]:
    """Write all files of a prediction into a folder, and return the content of `prediction.json`."""
    if not answered.is_assessed:
        result = _not_assessed(answered, question, language)
        write_json(folder / PREDICTION, result)
        return result
    native = answered.native
    series = answered.measured_series()
    written = answered.label_maps
    if frames == "ed_es":
        written = {name: at_ed_and_es(one) for name, one in series.items()}
    for name, labels in written.items():
        coded = recoded(labels, mask_values)
        write_mask(folder / _mask_name(name), coded, images[name], name, files)
        study_panel(series[name], folder / _panel_name(name))
    result = _texts(answered, written, question, language)
    result["layout"] = _layouts(native)
    if answered.not_assessed:
        result["not_assessed"] = dict(answered.not_assessed)
    if frames != "all":
        result["mask_frames"] = {
            name: list(replace(native.series[name], mask=labels).known_frames())
            for name, labels in written.items()
        }
    measured = measure_masks(
        series,
        native.labels.demographics,
        answered.structures_on("lge"),
        folder,
        find_phases=isinstance(frames, str),
    )
    if "sax" in answered.label_maps:
        result["from_masks"] = measured.from_masks
    if "lge" in answered.label_maps:
        result["from_lge_masks"] = measured.from_lge_masks
    write_json(folder / PREDICTION, result)
    return result


def _not_assessed(answered: AnsweredStudy, question: str | None, language: str) -> dict[str, Any]:
    """Return a prediction that says nothing of a study but why."""
    text = text_of_not_assessed(answered.not_assessed, language)
    result: dict[str, Any] = {"report": text, "sections": {}, "disease": None}
    if question:
        result["question"] = question
        result["answer"] = text
    result["not_assessed"] = dict(answered.not_assessed)
    result["layout"] = _layouts(answered.native)
    return result


@contextmanager
def _replaced_when_whole(out: Path) -> Iterator[Path]:
    """Yield a folder beside `out` to write into, whose files replace those of an earlier prediction.

    That stays until the new one is whole; files that are not of a prediction stay in any case.
    `prediction.json` goes first and comes last, so that a folder that has it is whole.

    Raises:
        CmrvlmError: There is a file in place of the folder.
    """
    if out.exists() and not out.is_dir():
        raise CmrvlmError(
            "this is a file, no folder", file=out, field="out", remedy="Name another folder."
        )
    unfinished = out.absolute().with_name(f".{out.absolute().name}.unfinished")
    # What a killed prediction left.
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        out.mkdir(parents=True, exist_ok=True)
        for name in _names_of_files():
            (out / name).unlink(missing_ok=True)
        files = sorted(unfinished.iterdir(), key=lambda path: path.name == PREDICTION)
        for file in files:
            os.replace(file, out / file.name)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _names_of_files() -> list[str]:
    """Return the names of all files that a prediction may write, `prediction.json` first."""
    names = [PREDICTION, *PICTURES]
    for sequence in SEQUENCES:
        names += [_mask_name(sequence), _panel_name(sequence)]
    return names


def _texts(
    answered: AnsweredStudy, written: LabelMaps, question: str | None, language: str
) -> dict[str, Any]:
    """Return what is said of a study in words, with the answer to the user's question."""
    evidence = Evidence.of(answered.native)
    result = report_texts(answered.by_task("report"), answered.by_task("disease"), evidence)
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
