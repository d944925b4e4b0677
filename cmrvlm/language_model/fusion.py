"""Fusion of text and images: image tokens take the image places among the text embeddings."""

from __future__ import annotations

import torch
from torch import Tensor

from cmrvlm.errors import CmrvlmError


def fill_image_places(
    embeddings: Tensor, ids: Tensor, image_id: int, tokens: list[Tensor]
) -> Tensor:
    """Replace the embeddings of image places by image tokens.

    Args:
        embeddings: (R, L, D) text embeddings.
        ids: (R, L) token ids.
        image_id: Token id of an image place.
        tokens: Image tokens (n_r, D) of each row.

    Returns:
        (R, L, D) embeddings.

    Raises:
        CmrvlmError: A row has another number of image places than of image tokens.
    """
    is_image_place = ids == image_id
    place_counts = is_image_place.sum(dim=1).tolist()
    token_counts = [len(row_tokens) for row_tokens in tokens]
    for row, (places, given) in enumerate(zip(place_counts, token_counts, strict=True)):
        if places != given:
            raise CmrvlmError(
                f"row {row} has {places} image places and {given} image tokens",
                field="input_ids",
                remedy="Collate with the token counts of this model's encoders.",
            )

    if not sum(token_counts):
        return embeddings
    image_tokens = torch.cat(tokens).to(embeddings.dtype)
    return embeddings.masked_scatter(is_image_place[..., None], image_tokens)
