"""What was read of the shown series, as tokens for the language model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

_LIMIT = 4.0  # logits and standardised measurements beyond it are told as it
_SURE, _LOGIT_NOISE, _MEASUREMENT_NOISE = (
    3.0,
    1.0,
    0.15,
)  # what a good read-out says, and how far it is off


def teacher_forced_outputs(name: str, target: Tensor) -> Tensor:
    """What a good read-out would say about studies whose truth is known, with the noise that it would have.

    Args:
        name: Output.
        target: (B, size) of `cmrvlm.instructions.targets.study_targets`; what is NaN stays it.
    """
    noise = torch.randn(target.shape).to(
        target.device
    )  # drawn on the CPU: the same on every device
    if name == "measurements":
        return target + _MEASUREMENT_NOISE * noise
    return (2 * target - 1) * _SURE + _LOGIT_NOISE * noise


class ReadOutTokens(nn.Module):
    """A token for each value of the read-out: the name of what it is about, and how much of it there is.

    The name is the mean of the language model's own embeddings of its words, so that a question that names a finding
    finds its token by the words alone; the value moves the token along one direction for each output, so that "present"
    looks alike for all findings. One token for a whole output was read too poorly: words stayed at what a model that
    sees nothing says while the same values, as classes, were right.

    Args:
        names: Output to the token ids of the name of each of its values.
        width: Width of the language model.
    """

    ids: Tensor
    there: Tensor

    def __init__(self, names: Mapping[str, Sequence[Sequence[int]]], width: int) -> None:
        super().__init__()
        rows = [torch.tensor(own) for output in names.values() for own in output]
        padded = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1)
        self.register_buffer("ids", padded.clamp(min=0), persistent=False)
        self.register_buffer("there", (padded >= 0).float()[..., None], persistent=False)
        self.sizes = {name: len(output) for name, output in names.items()}
        self.labels = nn.Parameter(torch.randn(len(rows), width) * 0.02)
        self.directions = nn.Parameter(torch.randn(len(names), width) * 0.02)

    @property
    def count(self) -> int:
        """Tokens for each set of series."""
        return len(self.labels)

    def forward(self, outputs: Mapping[str, Tensor], embed: Callable[[Tensor], Tensor]) -> Tensor:
        """Tokens (K, count, width) from outputs (K, size) by name; the next word does not change what is read.

        Args:
            outputs: Logits, and standardised measurements.
            embed: Token ids to the language model's embeddings.
        """
        values = torch.cat([outputs[name].detach() for name in self.sizes], dim=1)
        values = values.float().clamp(-_LIMIT, _LIMIT) / _LIMIT
        names = (embed(self.ids) * self.there).sum(dim=1) / self.there.sum(dim=1)
        repeats = torch.tensor(list(self.sizes.values()), device=values.device)
        directions = self.directions.repeat_interleave(repeats, dim=0, output_size=self.count)
        return (names + self.labels)[None] + values[..., None] * directions[None]
