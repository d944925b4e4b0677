"""Stage 1: image and text towers that meet in one space. The text tower is the language model itself."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from cmrvlm.batch import Media, TextRows
from cmrvlm.encoders.base import Encoder
from cmrvlm.models.language_model import LanguageModel
from cmrvlm.models.projector import Projector


class DualEncoder(nn.Module):
    """Study embedding and text embedding.

    Args:
        encoders: Sequence to encoder.
        projectors: Sequence to projector; they go on to stage 2.
        llm: Language model that reads the report.
        width: Width of the shared space.
    """

    def __init__(
        self,
        encoders: Mapping[str, Encoder],
        projectors: Mapping[str, Projector],
        llm: LanguageModel,
        width: int = 128,
    ) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict(encoders)
        self.llm = llm
        self.projectors = nn.ModuleDict(projectors)
        self.image_projection = nn.ModuleDict({name: nn.Linear(llm.width, width) for name in encoders})
        self.text_projection = nn.Linear(llm.width, width)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))  # CLIP's initial temperature

    def embed_images(self, media: Mapping[str, list[Media]], count: int) -> Tensor:
        """(B, width): mean over the sequences that each of the `count` studies has."""
        device = self.text_projection.weight.device
        total = torch.zeros(count, self.text_projection.out_features, device=device)
        number = torch.zeros(count, 1, device=device)
        for name, stacks in media.items():
            encoder = self.encoders[name]
            assert isinstance(encoder, Encoder)
            for one in stacks:
                tokens = self.projectors[name](encoder.tokens_of_series(encoder(one.images).grid))  # (N, tokens, D)
                own = self.image_projection[name](tokens.mean(dim=1)).float()
                total = total.index_add(0, one.owners, own)
                number = number.index_add(0, one.owners, torch.ones_like(own[:, :1]))
        return total / number.clamp(min=1)

    def read(self, rows: TextRows) -> tuple[Tensor, Tensor]:
        """Text embeddings (R, width) from the last token and hidden states (R, L, D); text is read causally."""
        index = torch.arange(rows.ids.shape[1], device=rows.ids.device)
        valid = index[None] < rows.lengths[:, None]
        hidden = self.llm.hidden(self.llm.embed(rows.ids), valid, torch.zeros_like(rows.lengths))
        last = hidden[torch.arange(len(hidden), device=hidden.device), rows.lengths - 1]
        return self.text_projection(last), hidden

    def scale(self) -> Tensor:
        """Inverse temperature, at most 100."""
        return self.log_scale.exp().clamp(max=100.0)
