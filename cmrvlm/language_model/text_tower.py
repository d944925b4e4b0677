"""Text towers: encoders of whole texts for stage 1, in place of the language model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModel, AutoTokenizer

from cmrvlm.config.model_folder import reading_model
from cmrvlm.config.model_source import file_of_package
from cmrvlm.errors import CmrvlmError

# Id of padding behind the 256 values of a byte.
_BYTE_PADDING = 256


class TextTower(nn.Module):
    """An encoder of whole texts.

    Attributes:
        width: Size of the embeddings.
        learns: True if stage 1 trains the tower.
    """

    width: int
    learns: bool


class SentenceTower(TextTower):
    """A pretrained sentence encoder; the embedding of a text is the mean over its tokens.

    Args:
        path: Folder or name on the hub.
        package: Package that carries the model, in place of a path.
        learns: Train the tower in stage 1; if not, it stays as it was published.

    Raises:
        CmrvlmError: There is no such model, or it cannot be loaded.
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
        if package:
            file = file_of_package(package, "model.safetensors", "text_encoder.tower.package")
            source = str(file.parent)
        else:
            source = str(path)
        remedy = "Give a folder that save_pretrained wrote, or a name on the hub."
        with reading_model(source, "text_encoder.tower", remedy):
            self.network = AutoModel.from_pretrained(
                source, trust_remote_code=False, dtype=torch.float32, attn_implementation="eager"
            )
            self.tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        self.width = int(self.network.config.hidden_size)
        self.learns = learns

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Return the embeddings (N, width) of N texts, each cut at the encoder's longest input."""
        limit = int(self.network.config.max_position_embeddings)
        inputs = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=limit, return_tensors="pt"
        )
        inputs = inputs.to(next(self.network.parameters()).device)
        if not inputs["input_ids"].numel():
            # Tokenizers without marks of begin and end make no token of an empty text.
            return torch.zeros(len(texts), self.width, device=inputs["input_ids"].device)
        hidden = self.network(**inputs).last_hidden_state  # (N, L, D)
        return _mean_over_tokens(hidden, inputs["attention_mask"].bool())


class TinyTower(TextTower):
    """A small transformer over the bytes of a text, with random weights, for phantoms and tests.

    Args:
        width: Size of the embeddings.
        layers: Number of layers.
        longest: Number of bytes at which a text is cut.
    """

    def __init__(self, width: int = 96, layers: int = 2, longest: int = 512) -> None:
        super().__init__()
        self.width = width
        self.learns = True
        self.longest = longest
        self.bytes = nn.Embedding(_BYTE_PADDING + 1, width, padding_idx=_BYTE_PADDING)
        self.places = nn.Parameter(torch.randn(longest, width) * 0.02)
        block = nn.TransformerEncoderLayer(
            width, 4, 2 * width, dropout=0.0, batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(block, layers, enable_nested_tensor=False)

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Return the embeddings (N, width) of N texts, each cut at `longest` bytes."""
        # A text without a byte has no mean over its bytes; it is read as a blank.
        contents = [text.encode()[: self.longest] or b" " for text in texts]
        rows = [torch.tensor(list(content)) for content in contents]
        ids = pad_sequence(rows, batch_first=True, padding_value=_BYTE_PADDING)  # (N, L)
        ids = ids.to(self.places.device)
        is_byte = ids != _BYTE_PADDING
        embeddings = self.bytes(ids) + self.places[: ids.shape[1]]
        hidden = self.blocks(embeddings, src_key_padding_mask=~is_byte)  # (N, L, D)
        return _mean_over_tokens(hidden, is_byte)


def _mean_over_tokens(hidden: Tensor, valid: Tensor) -> Tensor:
    """Return the mean (N, D) of hidden states (N, L, D), zero for a text without any token.

    Args:
        hidden: (N, L, D) hidden states.
        valid: (N, L) true for tokens and false for padding.
    """
    # Attention among padding alone is not a number, and zero times that is none either.
    total = hidden.masked_fill(~valid[..., None], 0).sum(dim=1)
    return total / valid.sum(dim=1, keepdim=True).clamp(min=1)
