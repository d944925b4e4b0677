"""Assemble whole models from parts; sizes that follow from another part are derived here and written nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from cmrvlm.encoders.base import Encoder
from cmrvlm.errors import CmrvlmError
from cmrvlm.language_model.network import LanguageModel
from cmrvlm.language_model.text_tower import TextTower
from cmrvlm.models.dual_encoder import DualEncoder
from cmrvlm.models.features import MarkIds
from cmrvlm.models.mask_decoder import MaskDecoder
from cmrvlm.models.projector import Projector
from cmrvlm.models.read_out import ReadOut
from cmrvlm.models.vision_language_model import VisionLanguageModel


@dataclass
class Parts:
    """Parts that models are made of.

    Attributes:
        encoders: Sequence to encoder.
        llm: Language model.
        projector: Makes a projector from `in_width`, `out_width` and `counts`.
        heads: Name to factory: `mask` (from `pyramid_channels`, `pyramid_strides` and `query_width`), `read_out` (from
            `counts`, `widths`, `names` and `token_width`).
        names: Read-out to the token ids of the name of each of its values.
        ids: Token ids that the model must recognise.
        precision: Numeric precision in which the model answers.
    """

    encoders: Mapping[str, Encoder]
    llm: LanguageModel
    projector: Callable[..., Projector]
    heads: Mapping[str, Callable[..., Any] | None]
    names: Mapping[str, Sequence[Sequence[int]]]
    ids: MarkIds
    precision: str = "32-true"

    def projectors(self) -> dict[str, Projector]:
        """Make a projector for each encoder."""
        return {
            name: self.projector(
                in_width=encoder.width,
                out_width=self.llm.width,
                counts=(encoder.series_tokens, encoder.view_tokens),
            )
            for name, encoder in self.encoders.items()
        }

    def mask_decoders(self, sequences: Sequence[str]) -> dict[str, MaskDecoder]:
        """Make a mask decoder for each of some sequences that has an encoder; none without the head."""
        make_decoder = self.heads.get("mask")
        if make_decoder is None:
            return {}
        return {
            name: make_decoder(
                pyramid_channels=self.encoders[name].pyramid_channels,
                pyramid_strides=self.encoders[name].pyramid_strides,
                query_width=self.llm.width,
            )
            for name in sequences
            if name in self.encoders
        }

    def read_out(self) -> ReadOut | None:
        """Make the read-out over all encoders; None without the head."""
        make_read_out = self.heads.get("read_out")
        if make_read_out is None:
            return None
        read_out: ReadOut = make_read_out(
            counts={name: encoder.series_tokens for name, encoder in self.encoders.items()},
            widths={name: encoder.width for name, encoder in self.encoders.items()},
            names=self.names,
            token_width=self.llm.width,
        )
        return read_out


def vision_language(parts: Parts, mask_sequences: Sequence[str] = ("sax",)) -> VisionLanguageModel:
    """Return the model of stages 2 and 3.

    Args:
        parts: Encoders, language model and factories.
        mask_sequences: Sequences with a mask decoder; those without an encoder are left out.
    """
    return VisionLanguageModel(
        encoders=parts.encoders,
        projectors=parts.projectors(),
        llm=parts.llm,
        mask_head=parts.mask_decoders(mask_sequences),
        read_out=parts.read_out(),
        ids=parts.ids,
        precision=parts.precision,
    )


def dual(
    parts: Parts, contrast: nn.Module, width: int = 128, text_tower: TextTower | None = None
) -> DualEncoder:
    """Return the model of stage 1.

    Args:
        parts: Encoders, language model and projector factory.
        contrast: Loss of image and text embeddings.
        width: Width of the shared space.
        text_tower: Text encoder in place of the language model.

    Raises:
        CmrvlmError: There is no encoder.
    """
    if not parts.encoders:
        raise CmrvlmError(
            "no encoder is left", field="encoders", remedy="Keep at least one sequence."
        )
    return DualEncoder(parts.encoders, parts.projectors(), parts.llm, contrast, width, text_tower)
