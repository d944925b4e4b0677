"""Outputs of the read-out as tokens for the language model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from cmrvlm.instructions.read_outs import READ_OUTS

# Largest logit or standardised measurement that a token expresses.
_LIMIT = 4.0
# Logit that a good read-out gives for a true label, and the standard deviation of its errors.
_CONFIDENT_LOGIT = 3.0
_LOGIT_NOISE = 1.0
_MEASUREMENT_NOISE = 0.15


def teacher_forced_outputs(name: str, target: Tensor) -> Tensor:
    """Draw the outputs that a good read-out would give for studies whose truth is known.

    Args:
        name: Output, such as `disease` or `measurements`.
        target: Truth (B, size) of `cmrvlm.instructions.read_outs.study_targets`.

    Returns:
        Noisy logits or standardised measurements (B, size), NaN where the truth is NaN.
    """
    # Drawn on the CPU: the same on every device.
    noise = torch.randn(target.shape).to(target.device)
    if not READ_OUTS[name].is_probability:
        return target + _MEASUREMENT_NOISE * noise
    signs = 2 * target - 1
    return signs * _CONFIDENT_LOGIT + _LOGIT_NOISE * noise


class ReadOutTokens(nn.Module):
    """A token for each value of the read-out, made of the value's name and its size.

    The name is the mean of the language model's own embeddings of its words, so that a question
    that names a finding can attend to its token by the words alone. The value moves the token along
    one direction for each output, so that "present" looks alike for all findings. One token for a
    whole output was read too poorly: answers were no better than without images, while the same
    values, as classes, were right.

    Args:
        names: Output to the token ids of the name of each of its values.
        width: Width of the language model.
    """

    name_ids: Tensor
    is_token: Tensor

    def __init__(self, names: Mapping[str, Sequence[Sequence[int]]], width: int) -> None:
        super().__init__()
        self.sizes: dict[str, int] = {}
        token_ids = []
        for output, value_names in names.items():
            self.sizes[output] = len(value_names)
            token_ids += [torch.tensor(ids) for ids in value_names]

        padded = nn.utils.rnn.pad_sequence(
            token_ids,
            batch_first=True,
            padding_value=-1,
        )
        is_token = (padded >= 0).float()
        # Names follow from the tokenizer, so they are not stored with the weights.
        self.register_buffer("name_ids", padded.clamp(min=0), persistent=False)
        self.register_buffer("is_token", is_token[..., None], persistent=False)

        labels = torch.randn(len(token_ids), width) * 0.02
        self.labels = nn.Parameter(labels)
        directions = torch.randn(len(names), width) * 0.02
        self.directions = nn.Parameter(directions)

    @property
    def count(self) -> int:
        """Number of tokens for each set of series."""
        return len(self.labels)

    def forward(
        self,
        outputs: Mapping[str, Tensor],
        embed: Callable[[Tensor], Tensor],
    ) -> Tensor:
        """Make the tokens of K sets of series.

        Args:
            outputs: Output to logits or standardised measurements (K, size).
            embed: Token ids to the language model's embeddings.

        Returns:
            Tokens (K, count, width). No gradient flows back to the outputs: the next word does not
            change what is read.
        """
        detached = [outputs[name].detach() for name in self.sizes]
        values = torch.cat(detached, dim=1).float()
        values = values.clamp(-_LIMIT, _LIMIT) / _LIMIT  # (K, count)

        embedded = embed(self.name_ids) * self.is_token  # (count, longest name, width)
        names = embedded.sum(dim=1) / self.is_token.sum(dim=1)  # (count, width)

        sizes = list(self.sizes.values())
        repeats = torch.tensor(sizes, device=values.device)
        directions = self.directions.repeat_interleave(
            repeats,
            dim=0,
            output_size=self.count,
        )  # (count, width)
        labelled = names + self.labels
        return labelled[None] + values[..., None] * directions[None]
