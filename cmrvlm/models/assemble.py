"""Whole models from parts; sizes that follow from another part are derived here and written nowhere else."""

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
from cmrvlm.models.projector import Projector
from cmrvlm.models.vision_language_model import CMRVLM


@dataclass
class Parts:
    """What models are made of.

    Attributes:
        encoders: Sequence to encoder.
        llm: Language model.
        projector: Makes a projector from `in_width`, `out_width` and `counts`.
        heads: Name to factory: `mask` (from `pyramid_channels`, `pyramid_strides` and `query_width`), `read_out` (from
            `counts`, `widths`, `names` and `token_width`).
        names: Output of the read-out to the token ids of the name of each of its values.
        ids: What the model must recognise in a text.
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
        """A projector for each encoder."""
        return {
            name: self.projector(
                in_width=one.width,
                out_width=self.llm.width,
                counts=(one.series_tokens, one.view_tokens),
            )
            for name, one in self.encoders.items()
        }


def vision_language(parts: Parts, mask_sequences: Sequence[str] = ("sax",)) -> CMRVLM:
    """The model of stages 2 and 3.

    Args:
        parts: Encoders, language model and factories.
        mask_sequences: Sequences with a mask decoder; those without an encoder are left out.
    """
    width = parts.llm.width
    mask, read_out = parts.heads.get("mask"), parts.heads.get("read_out")
    sequences = [name for name in mask_sequences if name in parts.encoders] if mask else []
    return CMRVLM(
        encoders=parts.encoders,
        projectors=parts.projectors(),
        llm=parts.llm,
        mask_head={
            name: mask(
                pyramid_channels=parts.encoders[name].pyramid_channels,
                pyramid_strides=parts.encoders[name].pyramid_strides,
                query_width=width,
            )
            for name in sequences
            if mask is not None
        },
        read_out=read_out(
            counts={name: one.series_tokens for name, one in parts.encoders.items()},
            widths={name: one.width for name, one in parts.encoders.items()},
            names=parts.names,
            token_width=width,
        )
        if read_out
        else None,
        ids=parts.ids,
        precision=parts.precision,
    )


def dual(
    parts: Parts, contrast: nn.Module, width: int = 128, text_tower: TextTower | None = None
) -> DualEncoder:
    """The model of stage 1.

    Args:
        parts: Encoders, language model and projector factory.
        contrast: Loss of image and text embeddings.
        width: Width of the shared space.
        text_tower: In place of the language model.
    """
    if not parts.encoders:
        raise CmrvlmError(
            "no encoder is left", field="encoders", remedy="Keep at least one sequence."
        )
    return DualEncoder(parts.encoders, parts.projectors(), parts.llm, contrast, width, text_tower)
