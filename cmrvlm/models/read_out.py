"""Numbers and classes read from the encoders' tokens of whatever sequences are shown."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

_LIMIT = 4.0  # standardised measurements beyond it are told as it


class ReadOut(nn.Module):
    """Several outputs over one hidden layer: the sum of what each shown sequence says.

    Each sequence has its own linear layer over all its tokens, so a token counts by its place; what is not shown adds
    nothing. The head reads the encoders and not the language model's tokens: those are shaped by the next word, and
    their gradients drown those of the diagnosis. What it has read of all shown sequences together is told to the
    language model, one token for each output, so that words, classes and numbers come from the same evidence.

    Args:
        counts: Sequence to the number of tokens of a whole series.
        widths: Sequence to the width of its tokens.
        sizes: Output (`cmrvlm.targets.TARGET_SIZES`) to the number of its values.
        token_width: Width of the language model.
        hidden: Width of the hidden layer.
    """

    def __init__(
        self,
        counts: Mapping[str, int],
        widths: Mapping[str, int],
        sizes: Mapping[str, int],
        token_width: int,
        hidden: int = 256,
    ) -> None:
        super().__init__()
        self.read = nn.ModuleDict(
            {
                name: nn.Sequential(nn.LayerNorm(widths[name]), nn.Flatten(1), nn.Linear(count * widths[name], hidden))
                for name, count in counts.items()
            }
        )
        self.tell = nn.ModuleDict({name: nn.Linear(size, token_width) for name, size in sizes.items()})
        self.outputs = nn.ModuleDict({name: nn.Sequential(nn.GELU(), nn.Linear(hidden, size))
                                      for name, size in sizes.items()})  # fmt: skip
        if "disease" in sizes:
            last = self.outputs["disease"][-1]  # type: ignore[index]
            nn.init.constant_(last.bias, -math.log(sizes["disease"] - 1))  # each class is one of many

    def summarise(self, sequence: str, tokens: Tensor) -> Tensor:
        """What whole series say: tokens (N, count, width) to (N, hidden)."""
        summary: Tensor = self.read[sequence](tokens)
        return summary

    def tokens(self, outputs: Mapping[str, Tensor]) -> Tensor:
        """Outputs (K, size) as tokens (K, outputs, token_width); the next word does not change what is read."""
        told = []
        for name, layer in self.tell.items():
            values = outputs[name].detach()
            told.append(layer(values.clamp(-_LIMIT, _LIMIT) if name == "measurements" else torch.sigmoid(values)))
        return torch.stack(told, dim=1)

    def forward(self, summaries: list[Tensor]) -> dict[str, Tensor]:
        """Outputs (K, size) by name from the summed summaries (hidden,) of each of K sets of series."""
        stacked = torch.stack(summaries)
        return {name: output(stacked) for name, output in self.outputs.items()}
