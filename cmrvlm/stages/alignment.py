"""Stage 2: the projectors learn to speak to the language model, which stays as it is."""

from __future__ import annotations

from cmrvlm.batch import Batch
from cmrvlm.losses.language import answer_cross_entropy
from cmrvlm.losses.reduction import Loss
from cmrvlm.models.cmrvlm import rows_of
from cmrvlm.stages.instruction import InstructionStage


class AlignmentStage(InstructionStage):
    """Loss `language` on captions; encoders are not trained and run without gradients."""

    def losses(self, batch: Batch) -> dict[str, Loss]:
        """The language loss of a batch."""
        features = self.model.encode(batch.media)
        tokens = self.model.image_tokens(features, batch.instructions, rows_of(batch))
        hidden = self.model.read(batch.rows, tokens)
        return {"language": Loss(answer_cross_entropy(*self.model.answer_logits(hidden, batch.rows)), "tokens")}
