"""Text towers of stage 1 that are not the language model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer

from cmrvlm.config.model_source import check_no_adapter, file_of_package
from cmrvlm.errors import CmrvlmError


class TextTower(nn.Module):
    """Embeddings of whole texts.

    Attributes:
        width: Size of the embeddings.
        learns: Stage 1 trains it.
    """

    width: int
    learns: bool


class SentenceTower(TextTower):
    """Embeddings of whole texts: the mean over the tokens of a pretrained encoder.

    Args:
        path: Folder or name on the hub.
        package: Package that carries the model, in place of a path.
        learns: Stage 1 trains it; else it stays as it came.
    """

    def __init__(
        self, path: str | None = None, package: str | None = None, *, learns: bool = False
    ) -> None:
        super().__init__()
        if (path is None) == (package is None):
            raise CmrvlmError(
                "either path or package is needed",
                field="text_encoder.tower",
                remedy="Give a folder or a name on the hub.",
            )
        file = (
            file_of_package(package, "model.safetensors", "text_encoder.tower.package")
            if package
            else None
        )
        where = str(file.parent if file else path)
        check_no_adapter(where, "text_encoder.tower")
        try:
            self.network = AutoModel.from_pretrained(
                where, trust_remote_code=False, dtype=torch.float32, attn_implementation="eager"
            )
            self.tokenizer = AutoTokenizer.from_pretrained(where, trust_remote_code=False)
        except (OSError, ValueError) as error:
            remedy = "Give a folder that save_pretrained wrote, or a name on the hub."
            raise CmrvlmError(
                f"the text tower cannot be loaded ({error})",
                file=where,
                field="text_encoder.tower",
                remedy=remedy,
            ) from error
        self.width, self.learns = int(self.network.config.hidden_size), learns

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Texts to embeddings (N, width); what is longer than the encoder reads is cut."""
        limit = int(self.network.config.max_position_embeddings)
        told = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=limit, return_tensors="pt"
        )
        told = told.to(next(self.network.parameters()).device)
        hidden = self.network(**told).last_hidden_state  # (N, L, D)
        there = told["attention_mask"][..., None].to(hidden.dtype)
        return (hidden * there).sum(dim=1) / there.sum(dim=1)  # type: ignore[no-any-return]


class TinyTower(TextTower):
    """A small transformer over bytes, in any language, with random weights; for phantoms, tests and CPUs.

    Args:
        width: Size of the embeddings.
        layers: Number of layers.
        longest: Bytes of a text that are read.
    """

    def __init__(self, width: int = 96, layers: int = 2, longest: int = 512) -> None:
        super().__init__()
        self.width, self.learns, self.longest = width, True, longest
        self.bytes = nn.Embedding(257, width, padding_idx=256)
        self.places = nn.Parameter(torch.randn(longest, width) * 0.02)
        block = nn.TransformerEncoderLayer(
            width, 4, 2 * width, dropout=0.0, batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(block, layers, enable_nested_tensor=False)

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Texts to embeddings (N, width); bytes behind the longest are not read."""
        rows = [torch.tensor(list(text.encode()[: self.longest])) for text in texts]
        ids = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=256).to(
            self.places.device
        )
        there = ids != 256
        hidden = self.blocks(
            self.bytes(ids) + self.places[: ids.shape[1]], src_key_padding_mask=~there
        )
        return (hidden * there[..., None]).sum(dim=1) / there.sum(dim=1, keepdim=True)  # type: ignore[no-any-return]
