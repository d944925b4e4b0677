"""Stage 1: encoders against report text, while the text tower learns to write it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cmrvlm.batch import Batch
from cmrvlm.losses.contrastive import info_nce
from cmrvlm.losses.language import answer_cross_entropy
from cmrvlm.models.dual_encoder import DualEncoder
from cmrvlm.stages.base import Stage


class ContrastiveStage(Stage):
    """Losses `contrastive` (study against the answers of its instructions) and `language` (the answers themselves).

    The mix must ask for texts about the shown sequences, such as `report` and `caption`; one is enough for each study.
    """

    model: DualEncoder

    def __init__(self, model: DualEncoder, **settings: Any) -> None:
        super().__init__(model, **settings)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Both losses of a batch."""
        images = self.model.embed_images(batch.media, len(batch.study_ids))
        texts, hidden = self.model.read(batch.rows)
        answers = [one.answer for one in batch.instructions]
        same = torch.tensor([[a == b for b in answers] for a in answers], device=images.device)
        index = torch.arange(batch.rows.ids.shape[1] - 1, device=images.device)[None]
        inside = (index >= batch.rows.prompt_lengths[:, None] - 1) & (index < batch.rows.lengths[:, None] - 1)
        logits = self.model.llm.logits(hidden[:, :-1][inside])
        return {
            "contrastive": info_nce(images[batch.owners], texts, self.model.scale(), same),
            "language": answer_cross_entropy(logits, batch.rows.ids[:, 1:][inside]),
        }
