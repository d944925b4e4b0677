"""Numbers and classes read from the encoders' tokens of whatever sequences are shown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from cmrvlm.instructions.read_outs import READ_OUTS
from cmrvlm.models.read_out_tokens import ReadOutTokens


class ReadOut(nn.Module):
    """Several outputs over one hidden layer: the sum of what each shown sequence says.

    Each sequence has its own linear layer over all its tokens, so a token counts by its place; what is not shown adds
    nothing. The head reads the encoders and not the language model's tokens: those are shaped by the next word, and
    their gradients drown those of the diagnosis. What it has read of all shown sequences together is told to the
    language model as tokens, so that words, classes and numbers come from the same evidence.

    Args:
        counts: Sequence to the number of tokens of a whole series.
        widths: Sequence to the width of its tokens.
        names: Output (`cmrvlm.instructions.read_outs.READ_OUTS`) to the token ids of the name of each of its values.
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
        self.read = nn.ModuleDict(
            {
                name: nn.Sequential(
                    nn.LayerNorm(widths[name]),
                    nn.Flatten(1),
                    nn.Linear(count * widths[name], hidden),
                )
                for name, count in counts.items()
            }
        )
        self.tell = ReadOutTokens(names, token_width)
        self.outputs = nn.ModuleDict(
            {
                name: nn.Sequential(nn.GELU(), nn.Linear(hidden, len(own)))
                for name, own in names.items()
            }
        )
        for name, output in self.outputs.items():
            if READ_OUTS[name].one_of_many:
                bias = output[-1].bias  # type: ignore[index]
                nn.init.constant_(bias, -math.log(len(names[name]) - 1))

    def summarise(self, sequence: str, tokens: Tensor) -> Tensor:
        """What whole series say: tokens (N, count, width) to (N, hidden)."""
        summary: Tensor = self.read[sequence](tokens)
        return summary

    def forward(self, summaries: list[Tensor]) -> dict[str, Tensor]:
        """Outputs (K, size) by name from the summed summaries (hidden,) of each of K sets of series."""
        stacked = torch.stack(summaries)
        return {name: output(stacked) for name, output in self.outputs.items()}
