"""A run applied to one study: its report, masks and what is measured from them, pictures, and what was asked."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cmrvlm.config.build import build
from cmrvlm.config.command import Config
from cmrvlm.errors import CmrvlmError
from cmrvlm.inference.answering import answer_batch, device_of, quoted_values
from cmrvlm.inference.label_maps import (
    at_ed_and_es,
    check_coding,
    coded,
    frames_wanted,
    label_map,
    shown_frames,
    to_native,
    turned,
    with_empty_masks,
)
from cmrvlm.quantification.segments import septum_direction
from cmrvlm.quantification.summary import PICTURES, summarize_scar, summarize_ventricles
from cmrvlm.quantification.volumes import phases_of_masks
from cmrvlm.reports.reader import terms_named
from cmrvlm.reports.writer import not_assessed, split_sections
from cmrvlm.runs.run_folder import TrainedRun, load_run
from cmrvlm.study.atomic_files import write_json
from cmrvlm.study.drawing import COLORS, overlay, save
from cmrvlm.study.files import image_files, read_study, write_mask
from cmrvlm.study.measurements import MEASUREMENTS
from cmrvlm.study.orientation import LAYOUT, is_oriented
from cmrvlm.study.structures import STRUCTURE_TABLE
from cmrvlm.study.study import Series, Study
from cmrvlm.study.vocabulary import (
    DISEASES,
    LANGUAGES,
    NOT_ANNOTATED,
    SEQUENCE_TERMS,
    SEQUENCES,
    STRUCTURE_TERMS,
    STRUCTURES,
)
from cmrvlm.tasks.base import Answer, Case, Instruction, whole_views
from cmrvlm.tasks.diagnosis import DiseaseTask
from cmrvlm.tasks.reporting import ReportTask
from cmrvlm.tasks.segmentation import SegmentTask, said_absent, structures_asked

log = logging.getLogger(__name__)

_MASK = "{}_mask.nii.gz"
_PANEL = {name: "panel.png" if name == "sax" else f"panel_{name}.png" for name in SEQUENCES}
_WRITTEN = (
    "prediction.json",
    *PICTURES,
    *_PANEL.values(),
    *(_MASK.format(name) for name in SEQUENCES),
)


def questions(
    study: Study, language: str, ask: str | None, report: ReportTask
) -> list[Instruction]:
    """What a preprocessed study is asked in words: report, disease, and the user's own question."""
    views = whole_views(list(study.series))
    asked = [
        Instruction(
            study.study_id,
            "report",
            language,
            report.prompts[language][0],
            "",
            Case(views),
            outline=report.outline(language),
        ),
        Instruction(
            study.study_id, "disease", language, DiseaseTask.prompts[language][0], "", Case(views)
        ),
    ]
    if ask and not structures_asked(ask):
        asked.append(Instruction(study.study_id, "ask", language, ask, "", Case(views)))
    return asked


def panel(series: Series, path: Path) -> None:
    """Slices at the largest and the smallest left ventricle with the structures, or of the first frame with masks."""
    assert series.mask is not None
    phases = phases_of_masks(series)
    rows = (
        {"largest LV": phases["ed"], "smallest LV": phases["es"]}
        if phases
        else {"": series.known_frames()[0]}
    )
    slices = np.linspace(0, len(series.mask) - 1, min(6, len(series.mask))).round().astype(int)
    figure = Figure(figsize=(1.9 * len(slices), 2.1 * len(rows)))
    axes = figure.subplots(len(rows), len(slices), squeeze=False)
    for row, (name, frame) in enumerate(rows.items()):
        for column, index in enumerate(slices):
            picture = np.asarray(series.image[index, frame], dtype=np.float32)
            masks = {one: series.mask[index, frame] == STRUCTURES[one] for one in COLORS}
            overlay(
                axes[row, column],
                picture,
                masks,
                f"{name}, slice {index}" if len(rows) > 1 else f"slice {index}",
            )
    save(figure, path)


def predict(config: Config) -> dict[str, Any]:
    """Apply a run as `conf/predict.yaml` says; write report, masks and panel, and return what was written.

    Args:
        config: Plain configuration.
    """
    if config["language"] not in LANGUAGES:
        raise CmrvlmError(
            f"unknown language '{config['language']}'",
            field="language",
            remedy=f"Known: {LANGUAGES}.",
        )
    check_coding(config["mask_values"])
    device = device_of(config["device"])
    run = load_run(Path(config["run"]))
    run.model.to(device)
    native = read_study(Path(config["study"]), config["sequence"])
    known = {name: one for name, one in native.series.items() if name in run.model.encoders}
    if not known:
        raise CmrvlmError(
            f"the run reads {', '.join(run.model.encoders)}, the study has {', '.join(native.series)}",
            field="study",
            remedy="Use a run that was trained with this sequence.",
        )
    native = native.with_series(known)
    wanted = frames_wanted(config["frames"], native)
    out = Path(config["out"])
    out.mkdir(parents=True, exist_ok=True)
    for name in _WRITTEN:  # what is not written for this study must not be left of another one
        (out / name).unlink(missing_ok=True)
    study, answers = _answers(run, native, config, list(run.model.mask_head), with_words=True)
    maps = _label_maps(run, native, study, answers, config, wanted)
    measured = {
        name: replace(native.series[name], mask=labels, phases={}, levels=())
        for name, labels in maps.items()
    }
    written = (
        {name: at_ed_and_es(one) for name, one in measured.items()}
        if config["frames"] == "ed_es"
        else maps
    )
    result = _texts(answers, config["ask"], written) | {"layout": _layouts(native)}
    images = image_files(
        Path(config["study"]), config["sequence"]
    )  # for their headers, which a study does not hold
    for sequence, one in measured.items():
        labels = coded(written[sequence], config["mask_values"])
        write_mask(out / _MASK.format(sequence), labels, images[sequence], sequence)
        panel(one, out / _PANEL[sequence])
    if config["frames"] != "all":
        result["mask_frames"] = {
            sequence: list(replace(one, mask=written[sequence]).known_frames())
            for sequence, one in measured.items()
        }
    if "sax" in measured:
        result["from_masks"] = summarize_ventricles(
            measured["sax"],
            native.labels.demographics,
            out,
            find_phases=isinstance(config["frames"], str),
        )
    if "lge" in measured:
        asked = {
            mask.structure
            for answer in answers
            if answer.mask is not None
            and (mask := answer.instruction.case.mask)
            and mask.sequence == "lge"
        }
        cine = measured.get("sax")
        septum = (
            None
            if cine is None
            else septum_direction(
                cine, result["from_masks"]["frames"].get("ed", cine.known_frames()[0])
            )
        )
        result["from_lge_masks"] = summarize_scar(measured["lge"], asked, out, septum)
    write_json(out / "prediction.json", result)
    return result


def _layouts(study: Study) -> dict[str, str]:
    """Return for each series the layout that it was read in, and say of which files it could not be told."""
    layouts = {}
    for name, series in study.series.items():
        layouts[name] = LAYOUT
        if not is_oriented(series.affine):
            layouts[name] = "as stored: the file has no scanner orientation"
            log.warning(
                "%s: the file has no scanner orientation, rows, columns and slices stay as stored",
                name,
            )
    return layouts


@torch.no_grad()
def _answers(
    run: TrainedRun, native: Study, config: Config, masked: Collection[str], *, with_words: bool
) -> tuple[Study, list[Answer]]:
    """The study on the model's grid, and what the model says of it: masks of some series, and words if wanted."""
    study = run.preprocessing(with_empty_masks(native))
    tasks, language = build(run.config["mix"], "mix").tasks.values(), config["language"]
    structures = [
        task
        for task in tasks
        if isinstance(task, SegmentTask)
        and task.sequence in study.series
        and task.sequence in masked
    ]
    asked = [task.on_all_frames(study, language) for task in structures]
    if with_words:
        report = next((task for task in tasks if isinstance(task, ReportTask)), ReportTask())
        asked = questions(study, language, config["ask"], report) + asked
    return study, answer_batch(
        run.model,
        run.collator,
        run.collator([(study, asked)]),
        config["max_new_tokens"],
        build(config["decoding"], "decoding"),
        build(config["masks"], "masks"),
    )


def _label_maps(
    run: TrainedRun,
    native: Study,
    study: Study,
    answers: Sequence[Answer],
    config: Config,
    wanted: Mapping[str, NDArray[np.bool_]],
) -> dict[str, NDArray[np.uint8]]:
    """Sequence to labels (Z, T, H, W) on the native grid, 255 in frames that are not wanted or were not seen.

    A model sees so many frames of a cine at a time. For others the cine is shown again, begun some frames later, until
    every frame that is wanted was among those that are seen.
    """
    found = {}
    for sequence in run.model.mask_head:
        labels = label_map(answers, sequence) if sequence in study.series else None
        if labels is not None:
            found[sequence] = to_native(labels, study, native, sequence)
    counts = {
        name: (native.series[name].image.shape[1], study.series[name].image.shape[1])
        for name in found
    }
    for later in range(
        1, max((math.ceil(count / seen) for count, seen in counts.values()), default=1)
    ):
        unseen = {
            name: (labels == NOT_ANNOTATED).all(axis=(0, 2, 3)) for name, labels in found.items()
        }
        owed = {
            name: unseen[name] & wanted[name] & shown_frames(*counts[name], later) for name in found
        }
        unfinished = [name for name, frames in owed.items() if frames.any()]
        if not unfinished:
            continue
        begun_later = turned(native, later)
        own, more = _answers(run, begun_later, config, unfinished, with_words=False)
        for sequence in unfinished:
            seen = label_map(more, sequence)
            if seen is not None:
                moved = np.roll(to_native(seen, own, begun_later, sequence), later, axis=1)
                found[sequence][:, unseen[sequence]] = moved[:, unseen[sequence]]
    if not isinstance(config["frames"], str):
        for name, labels in found.items():
            labels[:, ~wanted[name]] = NOT_ANNOTATED
    return found


def _of_structure(answer: Answer, maps: Mapping[str, NDArray[np.uint8]]) -> str:
    """What is said of a structure: that it is there where the written mask has it, else that it is not.

    What was answered of the frames that were seen first need not hold of the others, and a scar outside the wall, or a
    zone without reflow outside the scar, is in no mask.
    """
    target = answer.instruction.case.mask
    assert target is not None
    labels = maps.get(target.sequence)
    if labels is None:
        return answer.text
    if np.isin(labels, target.values).any():
        return answer.instruction.allowed[0]
    return said_absent(target.structure, answer.instruction.language)


def _texts(
    answers: list[Answer], ask: str | None, maps: Mapping[str, NDArray[np.uint8]]
) -> dict[str, Any]:
    by_task = {answer.instruction.task: answer for answer in answers}
    report, truncated = by_task["report"].text, by_task["report"].truncated
    read_outs = by_task["disease"].read_outs
    result: dict[str, Any] = {
        "report": report,
        "sections": split_sections(report, truncated=truncated),
        "disease": by_task["disease"].text,
    }
    if read_outs:
        result["probabilities"] = {
            code: round(float(p), 4) for code, p in zip(DISEASES, read_outs["disease"], strict=True)
        }
        result["measurements"] = {
            name: round(value, 1) for name, value in quoted_values(read_outs).items()
        }
        withheld = [name for name in MEASUREMENTS if name not in result["measurements"]]
        if withheld:
            result["not_computable"] = dict.fromkeys(withheld, "insufficient slices")
    if ask:
        # Where a structure was looked for on two series, the one that is named answers, or that it is usually drawn on.
        named = terms_named(ask, SEQUENCE_TERMS)
        masks = [
            (mask, _of_structure(one, maps))
            for one in answers
            if (mask := one.instruction.case.mask) and (not named or mask.sequence in named)
        ]
        said = {mask.structure: text for mask, text in masks}
        said |= {
            mask.structure: text
            for mask, text in masks
            if mask.sequence == STRUCTURE_TABLE[mask.structure].usual_sequence
        }
        language = by_task["report"].instruction.language
        asked = [
            said.get(name) or f"{STRUCTURE_TERMS[name].name(language)}: {not_assessed(language)}"
            for name in structures_asked(ask)
        ]
        result["question"], result["answer"] = (
            ask,
            " ".join(asked) if asked else by_task["ask"].text,
        )
    return result
