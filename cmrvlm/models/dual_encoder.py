"""Stage 1: image and text towers that meet in one space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from cmrvlm.encoders.base import Encoder
from cmrvlm.instructions.batch import Media, TextRows
from cmrvlm.language_model.attention_mask import Layout
from cmrvlm.language_model.network import LanguageModel
from cmrvlm.language_model.text_tower import TextTower
from cmrvlm.models.projector import Projector


class DualEncoder(nn.Module):
    """An embedding for each series of a study, and one for its text.

    Args:
        encoders: Sequence to encoder.
        projectors: Sequence to projector; they go on to stage 2.
        llm: Language model; it is the text tower unless there is another, and learns to write the texts meanwhile.
        contrast: Loss of images (N, D) and texts (N, D) with what also fits (N, N).
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
        self.image_projection = nn.ModuleDict(
            {name: nn.Linear(llm.width, width) for name in encoders}
        )
        self.text_tower, self.contrast = text_tower, contrast
        self.text_projection = nn.Linear(
            llm.width if text_tower is None else text_tower.width, width
        )

    def token_counts(self, name: str) -> tuple[int, int]:
        """None: the text tower sees no images."""
        return 0, 0

    def embed_images(self, media: Mapping[str, list[Media]]) -> dict[str, tuple[Tensor, Tensor]]:
        """For each sequence the studies that have it (N,) and their embeddings (N, width)."""
        found = {}
        for name, stacks in media.items():
            encoder = self.encoders[name]
            assert isinstance(encoder, Encoder)
            tokens = [
                self.projectors[name](encoder.tokens_of_series(encoder(one.images).grid))
                for one in stacks
            ]
            owners = torch.cat([one.owners for one in stacks])
            found[name] = owners, self.image_projection[name](torch.cat(tokens).mean(dim=1))
        return found

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Embeddings (N, width) by the text tower that is not the language model."""
        assert self.text_tower is not None
        embedded: Tensor = self.text_projection(self.text_tower(texts))
        return embedded

    def read(self, rows: TextRows) -> tuple[Tensor, Tensor]:
        """Read texts causally: embeddings (R, width) from the last token, and hidden states (R, L, D) in float32."""
        nothing = torch.zeros_like(rows.lengths)
        hidden = self.llm.hidden(
            self.llm.embed(rows.ids), Layout.of_rows(rows.is_token(), nothing, nothing)
        ).float()
        last = hidden[torch.arange(len(hidden), device=hidden.device), rows.lengths - 1]
        return self.text_projection(last), hidden
