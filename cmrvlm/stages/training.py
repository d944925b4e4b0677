"""Train one stage from its configuration into its run folder."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch import LightningDataModule, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ProgressBar
from torch import nn

from cmrvlm.config.build import build
from cmrvlm.config.command import Config
from cmrvlm.config.console import print_table
from cmrvlm.config.terminal import PlainConsole
from cmrvlm.errors import CmrvlmError, missing_run
from cmrvlm.language_model.finite import check_weights
from cmrvlm.models.card import parameter_table
from cmrvlm.models.vision_language_model import VisionLanguageModel
from cmrvlm.runs.checkpoint_files import CheckpointFiles
from cmrvlm.runs.data import DataModule
from cmrvlm.runs.fingerprints import check_fingerprints, identify, write_fingerprints
from cmrvlm.runs.handover import hand_over, moved_table
from cmrvlm.runs.known_images import familiarity_of
from cmrvlm.runs.lineage import LINEAGE, SPLIT, Parts, joined, parts_of, read_lineage, write_lineage
from cmrvlm.runs.run_claim import claimed, placed_in
from cmrvlm.runs.run_folder import FAMILIARITY, TOKENIZER, own_weights, save_run
from cmrvlm.runs.wiring import (
    build_collator,
    build_data,
    build_model,
    build_stage,
    build_tokenizer,
    check_masks,
)
from cmrvlm.stages.callbacks.interruption import EndOnSignal, interrupted
from cmrvlm.stages.memory_estimate import memory_message

log = logging.getLogger(__name__)


def train(config: Config, run: Path) -> float | None:
    """Train as a resolved configuration says and fill the run folder.

    Args:
        config: Plain configuration of `conf/train.yaml`.
        run: Run folder.

    Returns:
        The value of `optimized_metric`, None when the run did not log it.

    Raises:
        FolderTakenError: The folder holds a run and `overwrite` is not set, or another training writes into it.
    """
    checkpoint = config["ckpt_path"]
    resumed = Path(checkpoint).parent.parent if checkpoint else None
    first = first_process()
    with claimed(
        run, overwrite=config["overwrite"], resumed=resumed, first_process=first
    ) as folder:
        return _train(config, run, folder)


def _train(config: Config, run: Path, folder: Path) -> float | None:
    """Train into a folder that belongs to this training, which becomes the run folder."""
    # Importing Lightning has set another level.
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    seed_everything(config["seed"], workers=True, verbose=False)
    init_from = config["stage"]["init_from"]
    earlier = Path(init_from) if init_from else None
    if earlier and not earlier.is_dir():
        raise missing_run(earlier, "stage.init_from")
    resumed = _run_of(config["ckpt_path"])

    data = _data_of(config, resumed)
    patient_of = data.patient_of()
    known = _known_patients((earlier, resumed), patient_of)
    data.begin_from(known)
    data.prepare_data()
    tokenizer = build_tokenizer(config, data, resumed or earlier)
    model = build_model(config, tokenizer)
    check_masks(model, data.mixture.tasks)
    if earlier:
        print_table(moved_table(hand_over(model, earlier)), PlainConsole())
    data.use_collator(build_collator(model, tokenizer))
    stage = _stage_of(config, model, data)
    _describe(model, data)
    placed = placed_in(config, run, folder)
    assert isinstance(placed, dict)
    ending = EndOnSignal(folder)
    checkpoints = CheckpointFiles(identify(model, tokenizer))
    trainer = _trainer(placed, folder, ending, checkpoints)

    if first_process():
        # Before the fit too, so that a run that is stopped can be resumed with its own tokenizer and split.
        save_run(folder, config, model, tokenizer, data.preprocessing, trained=False)
        data.save_split(folder / SPLIT)
        write_lineage(folder, joined(known, parts_of(data.full_split, patient_of)))
        write_fingerprints(folder)
    with ending.listening():
        _fit(trainer, stage, data, config["ckpt_path"], folder)
    check_weights(
        own_weights(model).items(),
        folder,
        "trainer",
        "Go on with an earlier checkpoint and a lower rate.",
    )
    if first_process():
        save_run(folder, config, model, tokenizer, data.preprocessing)
        if config["keep_familiarity"] and isinstance(model, VisionLanguageModel):
            familiarity_of(model, data).save(folder / FAMILIARITY)
            write_fingerprints(folder)
    metric = trainer.callback_metrics.get(config["optimized_metric"])
    if metric is None or math.isnan(float(metric)):
        return None
    return float(metric)


def _data_of(config: Config, resumed: Path | None) -> DataModule:
    """Build the data module; a training that is resumed keeps its split unless another is given."""
    if resumed is not None and config["data"].get("split_file") is None:
        return build_data(config, split_file=str(resumed / SPLIT))
    return build_data(config)


def _known_patients(runs: Iterable[Path | None], patient_of: Mapping[str, str]) -> dict[str, str]:
    """Return the patients that some runs and those before them knew, with their part of the split."""
    known: Parts = {}
    for run in runs:
        if run is not None:
            known = joined(known, read_lineage(run, patient_of))
    return known


def _stage_of(config: Config, model: nn.Module, data: DataModule) -> Any:
    """Build the stage, with class shares of the data where its losses are balanced by them."""
    balance = config["stage"].get("balance") or {}
    shares = {"class_shares": data.class_shares()} if any(balance.values()) else {}
    return build_stage(
        config, model, task_weights=data.mixture.loss_weights, seed=config["seed"], **shares
    )


def _fit(
    trainer: Trainer, stage: LightningModule, data: DataModule, checkpoint: str | None, folder: Path
) -> None:
    """Run the training.

    Raises:
        CmrvlmError: It was interrupted; the message says how to go on.
    """
    assert isinstance(data, LightningDataModule)
    try:
        trainer.fit(stage, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    except SystemExit as error:
        # So Lightning ends after a second Ctrl-C.
        raise interrupted(folder) from error


def first_process() -> bool:
    """Return whether this is the process that writes files."""
    return int(rank_zero_only.rank or 0) == 0  # type: ignore[attr-defined]


def _run_of(checkpoint: str | None) -> Path | None:
    """Return the run folder that a checkpoint lies in: what is resumed goes on with its tokenizer, split and lineage.

    Raises:
        CmrvlmError: It lies elsewhere, so that nothing tells whom it was trained on.
    """
    if not checkpoint:
        return None
    folder = Path(checkpoint).parent.parent
    if not ((folder / TOKENIZER).is_dir() and (folder / SPLIT).is_file()):
        raise CmrvlmError(
            f"the checkpoint lies outside of its run: there is no {TOKENIZER} and no {SPLIT} two folders above it",
            file=checkpoint,
            field="ckpt_path",
            remedy="Put it back into checkpoints/ of its run folder.",
        )
    check_fingerprints(folder, "ckpt_path", only=(SPLIT, LINEAGE))
    return folder


def _trainer(
    config: Config, folder: Path, ending: EndOnSignal, checkpoints: CheckpointFiles
) -> Trainer:
    """Build the trainer of a run folder, with the callback that ends it where it is interrupted."""
    callbacks = [
        build(one, f"callbacks.{name}") for name, one in config["callbacks"].items() if one
    ]
    # After the others, whose state of this step its checkpoint holds.
    callbacks.append(ending)
    loggers = [
        build(one, f"logger.{name}") for name, one in (config.get("logger") or {}).items() if one
    ]
    bar = any(isinstance(one, ProgressBar) for one in callbacks)
    try:
        trainer: Trainer = build(
            config["trainer"],
            "trainer",
            callbacks=callbacks,
            logger=loggers,
            plugins=[checkpoints],
            default_root_dir=str(folder),
            enable_progress_bar=bar,
        )
    except MisconfigurationException as error:
        # Such as a GPU that is asked for where none can be seen.
        raise CmrvlmError(
            f"there can be no such training here: {error}",
            field="trainer",
            remedy="Use hardware=cpu, or see whether nvidia-smi lists a GPU.",
        ) from error
    return trainer


def _describe(model: Any, data: Any) -> None:
    PlainConsole().print(parameter_table(model))
    if isinstance(model, VisionLanguageModel) and model.llm.source is not None:
        log.info(memory_message(model, next(iter(data.train_dataloader()))))
    log.info(
        "studies: %s", ", ".join(f"{len(studies)} {part}" for part, studies in data.split.items())
    )
    if data.failures:
        log.warning(
            "left out %d broken studies: %s", len(data.failures), "; ".join(data.failures.values())
        )
