"""Train the projectors alone, before a language model that stays as it is: stage 2."""

from __future__ import annotations

from cmrvlm.instructions.batch import Batch
from cmrvlm.losses.reduction import Loss
from cmrvlm.stages.instruction import InstructionStage


class AlignmentStage(InstructionStage):
    """Stage with the loss `language` alone.

    Encoders and read-out are not trained, so that the language model should be told true values throughout.
    """

    def losses(self, batch: Batch) -> dict[str, Loss]:
        """Return the language loss of a batch."""
        owners = batch.questions().owners
        told = self.taught_read_outs(batch)
        reading = self.model(batch.media, batch.rows, batch.instructions, owners, told)
        logits, labels = self.model.answer_logits(reading.hidden, batch.rows)
        return {"language": self.language_loss(logits, labels, batch.rows, batch.instructions)}
