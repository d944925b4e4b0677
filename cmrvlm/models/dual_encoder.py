"""Model of stage 1: images and texts embedded in one space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cmrvlm.encoders.base import Encoder
from cmrvlm.instructions.batch import Media, TextRows
from cmrvlm.language_model.attention_mask import Layout
from cmrvlm.language_model.network import LanguageModel
from cmrvlm.language_model.text_tower import TextTower
from cmrvlm.models.projector import Projector


class SeriesEmbeddings(NamedTuple):
    """Embeddings of all series of one sequence in a batch.

    Attributes:
        owners: Study (N,) that each series belongs to.
        embeddings: Embeddings (N, width).
    """

    owners: Tensor
    embeddings: Tensor


class DualEncoder(nn.Module):
    """An embedding for each series of a study, and one for its text.

    Args:
        encoders: Sequence to encoder.
        projectors: Sequence to projector; they go on to stage 2.
        llm: Language model. It is the text tower unless there is another, and learns to write the
            texts meanwhile.
        contrast: Loss of images (N, D) and texts (N, D), given which pairs (N, N) belong together.
        width: Width of the shared space.
        text_tower: Texts to embeddings, in place of the language model, which then takes no part.
    """

    def __init__(
        self,
        encoders: Mapping[str, Encoder],
        projectors: Mapping[str, Projector],
        llm: LanguageModel,
        contrast: nn.Module,
        width: int = 128,
        text_tower: TextTower | None = None,
    ) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict(encoders)
        self.llm = llm
        self.projectors = nn.ModuleDict(projectors)
        self.image_projection = nn.ModuleDict()
        for name in encoders:
            self.image_projection[name] = nn.Linear(llm.width, width)
        self.text_tower = text_tower
        self.contrast = contrast
        text_width = llm.width
        if text_tower is not None:
            text_width = text_tower.width
        self.text_projection = nn.Linear(text_width, width)

    def token_counts(self, name: str) -> tuple[int, int]:
        """Return (0, 0): the text tower takes no image tokens."""
        return 0, 0

    def embed_images(
        self,
        media: Mapping[str, list[Media]],
    ) -> dict[str, SeriesEmbeddings]:
        """Embed each series of a batch.

        Args:
            media: Sequence to stacks of series, images (N_i, 1, Z, T, H, W) each.

        Returns:
            Sequence to the embeddings (N, width) of its series and their studies (N,).
        """
        embedded = {}
        for name, stacks in media.items():
            encoder = self.encoders[name]
            assert isinstance(encoder, Encoder)
            tokens = []
            for stack in stacks:
                features = encoder(stack.images)
                series_tokens = encoder.tokens_of_series(features.grid)
                tokens.append(self.projectors[name](series_tokens))
            pooled = torch.cat(tokens).mean(dim=1)  # (N, llm width)
            embedded[name] = SeriesEmbeddings(
                owners=torch.cat([stack.owners for stack in stacks]),
                embeddings=self.image_projection[name](pooled),
            )
        return embedded

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Embed N texts by the text tower that replaces the language model, as (N, width)."""
        assert self.text_tower is not None
        embedded: Tensor = self.text_projection(self.text_tower(texts))
        return embedded

    def read(self, rows: TextRows) -> tuple[Tensor, Tensor]:
        """Read R texts causally with the language model.

        Args:
            rows: Token ids (R, L) and the lengths of the texts.

        Returns:
            Embeddings (R, width) from the last token of each text, and the hidden states (R, L, D)
            in float32.
        """
        # No prefix of images, and no prompt: every token sees those before it alone.
        no_tokens = torch.zeros_like(rows.lengths)
        layout = Layout.of_rows(rows.is_token(), no_tokens, no_tokens)
        embeddings = self.llm.embed(rows.ids)
        hidden = self.llm.hidden(embeddings, layout).float()

        row_index = torch.arange(len(hidden), device=hidden.device)
        last = hidden[row_index, rows.lengths - 1]  # (R, D)
        return self.text_projection(last), hidden
