"""A text tower of stage 1 that is not the language model: a pretrained sentence encoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer

from cmrvlm.errors import CmrvlmError
from cmrvlm.text.pretrained import file_of_package


class SentenceTower(nn.Module):
    """Embeddings of whole texts: the mean over the tokens of a pretrained encoder; trained if the stage says so.

    Args:
        path: Folder or name on the hub.
        package: Package that carries the model, in place of a path.
    """

    def __init__(self, path: str | None = None, package: str | None = None) -> None:
        super().__init__()
        if (path is None) == (package is None):
            raise CmrvlmError("either path or package is needed", field="text_encoder.tower",
                              remedy="Give a folder or a name on the hub.")  # fmt: skip
        file = file_of_package(package, "model.safetensors", "text_encoder.tower.package") if package else None
        where = str(file.parent if file else path)
        try:
            self.network = AutoModel.from_pretrained(where, trust_remote_code=False, dtype=torch.float32)
            self.tokenizer = AutoTokenizer.from_pretrained(where, trust_remote_code=False)
        except (OSError, ValueError) as error:
            remedy = "Give a folder that save_pretrained wrote, or a name on the hub."
            raise CmrvlmError(f"the text tower cannot be loaded ({error})", file=where, field="text_encoder.tower",
                              remedy=remedy) from error  # fmt: skip

    @property
    def width(self) -> int:
        """Size of the embeddings."""
        return int(self.network.config.hidden_size)

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Texts to embeddings (N, width); what is longer than the encoder reads is cut."""
        limit = int(self.network.config.max_position_embeddings)
        told = self.tokenizer(list(texts), padding=True, truncation=True, max_length=limit, return_tensors="pt")
        told = told.to(next(self.network.parameters()).device)
        hidden = self.network(**told).last_hidden_state  # (N, L, D)
        there = told["attention_mask"][..., None].to(hidden.dtype)
        return (hidden * there).sum(dim=1) / there.sum(dim=1)  # type: ignore[no-any-return]
