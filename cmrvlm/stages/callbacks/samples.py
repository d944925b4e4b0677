"""Write samples at each validation: generated texts beside their targets, and masks as pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from cmrvlm.inference.answering import answer_batch
from cmrvlm.inference.panels import mask_panel
from cmrvlm.instructions.batch import Batch
from cmrvlm.models.vision_language_model import VisionLanguageModel
from cmrvlm.study.atomic_files import json_text


class ValidationSamples(Callback):
    """Answers to the first validation batch as JSON lines, and its masks as a panel.

    Args:
        folder: Where files go.
        max_new_tokens: Longest generated answer.
        text: Write answers.
        panels: Write pictures.
    """

    def __init__(
        self, folder: str, max_new_tokens: int = 160, text: bool = True, panels: bool = True
    ) -> None:
        self.folder = Path(folder)
        self.max_new_tokens = max_new_tokens
        self.text = text
        self.panels = panels

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write the samples of the first batch, on the first process only."""
        model = pl_module.model
        if (
            batch_idx
            or trainer.sanity_checking
            or not trainer.is_global_zero
            or not isinstance(model, VisionLanguageModel)
        ):
            return
        collator = trainer.datamodule.collator  # type: ignore[attr-defined]
        answers = answer_batch(model, collator, batch, self.max_new_tokens)
        step = trainer.global_step
        if self.text:
            path = self.folder / "samples" / f"step{step:06d}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = [
                {
                    "study": a.instruction.study_id,
                    "task": a.instruction.task,
                    "prompt": a.instruction.prompt,
                    "target": a.instruction.reference,
                    "answer": a.text,
                }
                for a in answers
            ]
            path.write_text("\n".join(json_text(line) for line in lines) + "\n")
        if self.panels:
            mask_panel([(batch, answers)], self.folder / "panels" / f"step{step:06d}.png")
