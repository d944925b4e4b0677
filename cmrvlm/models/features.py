"""Hold a batch of studies after encoding, and the rows of text that were read with them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from torch import Tensor

from cmrvlm.encoders.base import Encoded
from cmrvlm.instructions.batch import TextRows
from cmrvlm.instructions.question import Question


@dataclass(frozen=True)
class MarkIds:
    """Token ids that the model must recognise: image places, <SEG> and <DET>."""

    image: int
    segment: int
    detect: int


@dataclass(frozen=True)
class Location:
    """Where a series lies among the stacks of its sequence.

    Attributes:
        stack: Index of the stack.
        index: Index of the series in the stack.
    """

    stack: int
    index: int


@dataclass
class Features:
    """Encoded studies.

    Attributes:
        stacks: Sequence to encoded stacks.
        tokens: Sequence to the tokens (N, tokens, D) of whole series of each stack.
        summaries: Sequence to the read-out's summary (N, hidden) of each stack; empty without a read-out.
        locations: (study, sequence) to where the series lies.
    """

    stacks: dict[str, list[Encoded]]
    tokens: dict[str, list[Tensor]]
    summaries: dict[str, list[Tensor]]
    locations: dict[tuple[int, str], Location]

    def __contains__(self, series: object) -> bool:
        return series in self.locations

    def encoded(self, study: int, sequence: str) -> Encoded:
        """Return the stack that holds a study's series."""
        return self.stacks[sequence][self.locations[study, sequence].stack]

    def summary(self, study: int, sequence: str) -> Tensor:
        """Return the read-out's summary (hidden,) of a study's series."""
        location = self.locations[study, sequence]
        return self.summaries[sequence][location.stack][location.index]

    def slices(self, study: int, sequence: str) -> int:
        """Return the number of slices of a study's series, 0 where the study lacks the sequence."""
        if (study, sequence) not in self:
            return 0
        return int(self.encoded(study, sequence).grid.shape[2])

    def of_sequences(self, sequences: Collection[str]) -> Features:
        """Return the encoded studies with some of their sequences alone."""
        return Features(
            stacks={name: self.stacks[name] for name in self.stacks if name in sequences},
            tokens={name: self.tokens[name] for name in self.tokens if name in sequences},
            summaries={name: self.summaries[name] for name in self.summaries if name in sequences},
            locations={
                (study, name): location
                for (study, name), location in self.locations.items()
                if name in sequences
            },
        )

    def sequences_by_study(self) -> dict[int, list[str]]:
        """Return the sequences of each study, studies in ascending order."""
        sequences: dict[int, list[str]] = defaultdict(list)
        for study, sequence in self.locations:
            sequences[study].append(sequence)
        return {study: sequences[study] for study in sorted(sequences)}


@dataclass(frozen=True)
class ReadRows:
    """Rows of text after the language model has read them with their images.

    Attributes:
        features: Encoded studies.
        hidden: (R, L, D) final hidden states, in float32.
        rows: Token ids and lengths of the R rows.
        questions: Question of each row.
        owners: Index of the study of each row.
    """

    features: Features
    hidden: Tensor
    rows: TextRows
    questions: Sequence[Question]
    owners: Sequence[int]
