"""Read-out head: classes and numbers from the encoders' tokens of the shown sequences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from cmrvlm.instructions.read_outs import READ_OUTS
from cmrvlm.models.read_out_tokens import ReadOutTokens


class ReadOut(nn.Module):
    """Several outputs over one hidden layer, to which each shown sequence adds its share.

    Each sequence has a linear layer of its own over all its tokens, so the position of a token
    matters; a sequence that is not shown adds nothing. The head reads the encoders and not the
    language model's tokens: those are shaped by the next word, and their gradients drown those of
    the diagnosis. Its outputs for all shown sequences together are given to the language model as
    tokens, so that words, classes and numbers come from the same evidence.

    Args:
        counts: Sequence to the number of tokens of a whole series.
        widths: Sequence to the width of its tokens.
        names: Output (`cmrvlm.instructions.read_outs.READ_OUTS`) to the token ids of the name of
            each of its values.
        token_width: Width of the language model.
        hidden: Width of the hidden layer.
    """

    def __init__(
        self,
        counts: Mapping[str, int],
        widths: Mapping[str, int],
        names: Mapping[str, Sequence[Sequence[int]]],
        token_width: int,
        hidden: int = 256,
    ) -> None:
        super().__init__()
        self.read = nn.ModuleDict()
        for sequence, count in counts.items():
            width = widths[sequence]
            self.read[sequence] = nn.Sequential(
                nn.LayerNorm(width),
                nn.Flatten(1),
                nn.Linear(count * width, hidden),
            )
        self.tell = ReadOutTokens(names, token_width)
        self.outputs = nn.ModuleDict()
        for output, value_names in names.items():
            last = nn.Linear(hidden, len(value_names))
            self.outputs[output] = nn.Sequential(nn.GELU(), last)
            if READ_OUTS[output].one_of_many:
                # Before training each class is as likely as any other.
                log_odds = -math.log(len(value_names) - 1)
                nn.init.constant_(last.bias, log_odds)

    def summarise(self, sequence: str, tokens: Tensor) -> Tensor:
        """Compute what whole series of a sequence add to the hidden layer.

        Args:
            sequence: Name of the sequence.
            tokens: Tokens (N, count, width) of the encoder.

        Returns:
            Summaries (N, hidden).
        """
        summary: Tensor = self.read[sequence](tokens)
        return summary

    def forward(self, summaries: list[Tensor]) -> dict[str, Tensor]:
        """Compute the outputs of K sets of series.

        Args:
            summaries: Sum of the summaries (hidden,) of the series of each set.

        Returns:
            Output to values (K, size).
        """
        stacked = torch.stack(summaries)  # (K, hidden)
        return {name: output(stacked) for name, output in self.outputs.items()}
