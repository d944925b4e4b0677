"""Stage 2: the projectors learn to speak to the language model, which stays as it is."""

from __future__ import annotations

from cmrvlm.instructions.batch import Batch
from cmrvlm.instructions.rows import rows_of
from cmrvlm.losses.reduction import Loss
from cmrvlm.stages.instruction import InstructionStage


class AlignmentStage(InstructionStage):
    """Loss `language` alone; encoders and read-out are not trained, so that all of its words should be taught."""

    def losses(self, batch: Batch) -> dict[str, Loss]:
        """The language loss of a batch."""
        features = self.model.encode(batch.media)
        tokens = self.model.image_tokens(
            features, batch.instructions, rows_of(batch), self.taught(batch)
        )
        hidden = self.model.read(batch.rows, tokens)
        logits, labels = self.model.answer_logits(hidden, batch.rows)
        return {"language": self.language_loss(logits, labels, batch.rows, batch.instructions)}
