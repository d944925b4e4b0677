"""Apply a run to one study: `python -m cmrvlm.predict run=<folder> study=<folder or file>`."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from omegaconf import DictConfig
from rich.console import Console

from cmrvlm.entry import CONFIG_PATH, explained
from cmrvlm.errors import CmrvlmError
from cmrvlm.figures import COLORS, overlay, save
from cmrvlm.inference import answer_batch, device_of, quoted_values
from cmrvlm.instantiate import build
from cmrvlm.labels import DISEASES, LANGUAGES, NOT_ANNOTATED, STRUCTURE_TERMS, STRUCTURES
from cmrvlm.measurements import MEASUREMENTS
from cmrvlm.quantification.summary import of_scar, of_ventricles
from cmrvlm.stages.run_folder import TrainedRun, load_run
from cmrvlm.stages.wiring import Config, plain
from cmrvlm.study import Study
from cmrvlm.study_io import read_study, write_nifti
from cmrvlm.tasks.base import Answer, Case, Instruction, whole_views
from cmrvlm.tasks.diagnosis import DiseaseTask
from cmrvlm.tasks.reporting import ReportTask
from cmrvlm.tasks.segmentation import SHOWN_BY, SegmentTask, structures_asked
from cmrvlm.text.report_writer import not_assessed, split_sections
from cmrvlm.transforms.frames import frames_to_keep
from cmrvlm.transforms.geometry import resample_mask

log = logging.getLogger(__name__)


def questions(
    study: Study, language: str, ask: str | None, structures: Sequence[SegmentTask], report: ReportTask
) -> list[Instruction]:
    """What a preprocessed study is asked: report, disease, masks on all frames, and the user's own question."""
    views = whole_views(list(study.series))
    asked = [Instruction(study.study_id, "report", language, report.prompts[language][0], "", Case(views),
                         outline=report.outline(language)),
             Instruction(study.study_id, "disease", language, DiseaseTask.prompts[language][0], "",
                         Case(views))]  # fmt: skip
    if ask and not structures_asked(ask):
        asked.append(Instruction(study.study_id, "ask", language, ask, "", Case(views)))
    for task in structures:
        frames = tuple(range(study.series[task.sequence].image.shape[1]))
        asked.append(task.word(study, task.case_on(list(study.series), frames), language))
    return asked


def with_empty_masks(study: Study) -> Study:
    """The study with masks in which nothing is annotated, as places for predictions."""
    series = {
        name: replace(one, mask=np.full(one.image.shape, NOT_ANNOTATED, dtype=np.uint8), phases={}, levels=())
        for name, one in study.series.items()
    }
    return study.with_series(series)


def label_map(answers: list[Answer], sequence: str) -> NDArray[np.uint8] | None:
    """Predicted structures (Z, T, H, W) of a sequence in canonical values, None when no mask was given.

    Where structures overlap, the cavity goes before the wall, the wall before the right ventricle and that before the
    atria; a scar is drawn into the wall, and the zone without reflow into the scar, and where those were asked for,
    nowhere else.
    """
    found = {}
    for answer in answers:
        target = answer.instruction.case.mask
        if target is not None and target.sequence == sequence and answer.mask is not None:
            found[target.structure] = answer.mask
    if not found:
        return None
    for inner, outer in (("scar", "myo"), ("no_reflow", "scar")):
        if inner in found and outer in found:
            found[inner] = found[inner] & found[outer]
    result = np.zeros(next(iter(found.values())).shape, dtype=np.uint8)
    for structure in ("la", "ra", "rv", "myo", "scar", "no_reflow", "lv"):
        if structure in found:
            result[found[structure]] = STRUCTURES[structure]
    return result


def to_native(labels: NDArray[np.uint8], model_study: Study, native: Study, sequence: str) -> NDArray[np.uint8]:
    """Labels on the native grid; frames that the model did not see are 255 (not annotated)."""
    here, there = model_study.series[sequence], native.series[sequence]
    z, t, h, w = there.image.shape
    moved = resample_mask(labels, here.affine, there.affine, (z, h, w))
    moved[moved == NOT_ANNOTATED] = STRUCTURES["background"]  # outside the model's field of view it saw no structure
    result = np.full(there.image.shape, NOT_ANNOTATED, dtype=np.uint8)
    result[:, frames_to_keep(t, labels.shape[1], dict(there.phases))] = moved
    return result


def coded(labels: NDArray[np.uint8], values: Mapping[str, int] | None) -> NDArray[np.uint8]:
    """Labels with the values of another coding, such as that of the data set a mask is compared with.

    Args:
        labels: Canonical values; 255 (not annotated) stays.
        values: Structure to value; None keeps the canonical ones. Without a value of their own scar and no-reflow have
            that of the wall, and other structures become background.
    """
    if values is None:
        return labels
    table = np.zeros(NOT_ANNOTATED + 1, dtype=np.uint8)
    table[NOT_ANNOTATED] = NOT_ANNOTATED
    scar = values.get("scar", values.get("myo", 0))
    for name, value in ({"scar": scar, "no_reflow": scar} | dict(values)).items():
        table[STRUCTURES[name]] = value
    return table[labels]


def check_coding(values: Mapping[str, Any] | None) -> None:
    """Refuse a coding of masks in which a structure is unknown, or a value not its own.

    Raises:
        CmrvlmError: It is so.
    """
    given = values or {}
    odd = [name for name, value in given.items()
           if name not in STRUCTURES or not isinstance(value, int) or not 0 < value < NOT_ANNOTATED]  # fmt: skip
    if odd or len(set(given.values())) < len(given):
        raise CmrvlmError(f"no coding of masks: {dict(given)}", field="mask_values",
                          remedy=f"Give each of {', '.join(STRUCTURES)} a value of its own, 1 to 254.")  # fmt: skip


def panel(study: Study, sequence: str, labels: NDArray[np.uint8], path: Path) -> None:
    """Slices at the largest and the smallest left ventricle with the predicted structures."""
    volume = (labels == STRUCTURES["lv"]).sum(axis=(0, 2, 3))
    frames = [int(volume.argmax()), int(volume.argmin())]
    slices = np.linspace(0, len(labels) - 1, min(6, len(labels))).round().astype(int)
    figure = Figure(figsize=(1.9 * len(slices), 4.2))
    axes = figure.subplots(2, len(slices), squeeze=False)
    for row, (frame, name) in enumerate(zip(frames, ("largest LV", "smallest LV"), strict=True)):
        for column, index in enumerate(slices):
            picture = np.asarray(study.series[sequence].image[index, frame], dtype=np.float32)
            masks = {one: labels[index, frame] == STRUCTURES[one] for one in COLORS}
            overlay(axes[row, column], picture, masks, f"{name}, slice {index}")
    save(figure, path)


def predict(config: Config) -> dict[str, Any]:
    """Apply a run as `conf/predict.yaml` says; write report, masks and panel, and return what was written.

    Args:
        config: Plain configuration.
    """
    if config["language"] not in LANGUAGES:
        raise CmrvlmError(f"unknown language '{config['language']}'", field="language", remedy=f"Known: {LANGUAGES}.")
    check_coding(config["mask_values"])
    device = device_of(config["device"])
    run = load_run(Path(config["run"]))
    run.model.to(device)
    native = read_study(Path(config["study"]), config["sequence"])
    known = {name: one for name, one in native.series.items() if name in run.model.encoders}
    if not known:
        raise CmrvlmError(f"the run reads {', '.join(run.model.encoders)}, the study has {', '.join(native.series)}",
                          field="study", remedy="Use a run that was trained with this sequence.")  # fmt: skip
    native = native.with_series(known)
    study = run.preprocessing(with_empty_masks(native))
    answers = _answers(run, study, config)
    out = Path(config["out"])
    out.mkdir(parents=True, exist_ok=True)
    result = _texts(answers, config["ask"])
    for sequence in run.model.mask_head:
        labels = label_map(answers, sequence) if sequence in study.series else None
        if labels is not None:
            moved = to_native(labels, study, native, sequence)
            written = coded(moved, config["mask_values"])
            write_nifti(out / f"{sequence}_mask.nii.gz", written, native.series[sequence].affine)
            panel(study, sequence, labels, out / ("panel.png" if sequence == "sax" else f"panel_{sequence}.png"))
            measured = replace(native.series[sequence], mask=moved, phases={}, levels=())
            if sequence == "sax":
                result["from_masks"] = of_ventricles(measured, native.labels.demographics, out)
            elif sequence == "lge":
                asked = {one.structure for answer in answers
                         if (one := answer.instruction.case.mask) and one.sequence == sequence}  # fmt: skip
                result["from_lge_masks"] = of_scar(measured, asked, out)
    (out / "prediction.json").write_text(json.dumps(result, indent=1, ensure_ascii=False))
    return result


@torch.no_grad()
def _answers(run: TrainedRun, study: Study, config: Config) -> list[Answer]:
    tasks = build(run.config["mix"], "mix").tasks.values()
    report = next((task for task in tasks if isinstance(task, ReportTask)), ReportTask())
    structures = [task for task in tasks if isinstance(task, SegmentTask)
                  and task.sequence in study.series and task.sequence in run.model.mask_head]  # fmt: skip
    asked = questions(study, config["language"], config["ask"], structures, report)
    return answer_batch(run.model, run.collator, run.collator([(study, asked)]), config["max_new_tokens"],
                        build(config["decoding"], "decoding"), build(config["masks"], "masks"))  # fmt: skip


def _texts(answers: list[Answer], ask: str | None) -> dict[str, Any]:
    by_task = {answer.instruction.task: answer for answer in answers}
    report, truncated = by_task["report"].text, by_task["report"].truncated
    read_outs = by_task["disease"].read_outs
    result: dict[str, Any] = {
        "report": report,
        "sections": split_sections(report, truncated=truncated),
        "disease": by_task["disease"].text,
    }
    if read_outs:
        result["probabilities"] = {code: round(float(p), 4)
                                   for code, p in zip(DISEASES, read_outs["disease"], strict=True)}  # fmt: skip
        result["measurements"] = {name: round(value, 1) for name, value in quoted_values(read_outs).items()}
        withheld = [name for name in MEASUREMENTS if name not in result["measurements"]]
        if withheld:
            result["not_computable"] = dict.fromkeys(withheld, "insufficient slices")
    if ask:
        # Where a structure was looked for on two series, the one that it is usually drawn on answers.
        masks = [(mask, one.text) for one in answers if (mask := one.instruction.case.mask)]
        said = {mask.structure: text for mask, text in masks}
        said |= {mask.structure: text for mask, text in masks if mask.sequence == SHOWN_BY[mask.structure]}
        language = by_task["report"].instruction.language
        asked = [said.get(name) or f"{STRUCTURE_TERMS[name].name(language)}: {not_assessed(language)}"
                 for name in structures_asked(ask)]  # fmt: skip
        result["question"], result["answer"] = ask, " ".join(asked) if asked else by_task["ask"].text
    return result


@hydra.main(version_base="1.3", config_path=CONFIG_PATH, config_name="predict")
@explained
def main(config: DictConfig) -> None:
    """Entry point."""
    settings = plain(config)
    result = predict(settings)
    console = Console(soft_wrap=True, highlight=False)
    if "answer" in result:
        console.print(f"{result['question']}\n{result['answer']}\n", markup=False)
    console.print(f"{result['report']}\n", markup=False)
    log.info("written to %s", settings["out"])


if __name__ == "__main__":
    main()
