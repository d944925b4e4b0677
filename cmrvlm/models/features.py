"""What a batch of studies is once it is encoded, and the tokens that the model must recognise."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from cmrvlm.encoders.base import Encoded


@dataclass(frozen=True)
class MarkIds:
    """Token ids that the model must recognise: image places, <SEG> and <DET>."""

    image: int
    segment: int
    detect: int


@dataclass
class Features:
    """Encoded studies: for each sequence its stacks, and where each study lies in them.

    Attributes:
        stacks: Sequence to encoded stacks.
        tokens: Sequence to the series' tokens of each stack.
        summaries: Sequence to what the read-out says of each stack; empty without a read-out.
        place: (study, sequence) to (stack, index in it).
    """

    stacks: dict[str, list[Encoded]]
    tokens: dict[str, list[Tensor]]
    summaries: dict[str, list[Tensor]]
    place: dict[tuple[int, str], tuple[int, int]]
