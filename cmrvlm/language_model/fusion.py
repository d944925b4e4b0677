"""Image tokens into their places in the text."""

from __future__ import annotations

import torch
from torch import Tensor

from cmrvlm.errors import CmrvlmError


def fill_image_places(
    embeddings: Tensor, ids: Tensor, image_id: int, tokens: list[Tensor]
) -> Tensor:
    """Text embeddings with the image places replaced.

    Args:
        embeddings: (R, L, D).
        ids: (R, L) token ids.
        image_id: Id of the image place.
        tokens: For each row its image tokens (n_r, D).

    Returns:
        (R, L, D).

    Raises:
        CmrvlmError: A row has another number of places than of tokens.
    """
    places = ids == image_id
    wanted, given = places.sum(dim=1).tolist(), [len(one) for one in tokens]
    if wanted != given:
        row = next(r for r, (w, g) in enumerate(zip(wanted, given, strict=True)) if w != g)
        problem = f"row {row} has {wanted[row]} image places and {given[row]} image tokens"
        remedy = "Collate with the token counts of this model's encoders."
        raise CmrvlmError(problem, field="input_ids", remedy=remedy)
    if not sum(given):
        return embeddings
    return embeddings.masked_scatter(places[..., None], torch.cat(tokens).to(embeddings.dtype))
