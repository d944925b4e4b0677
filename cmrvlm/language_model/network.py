"""The language model as the framework uses it: from embeddings to hidden states to logits."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from transformers.pytorch_utils import Conv1D

from cmrvlm.language_model.attention_mask import (
    Layout,
    Style,
    attention_mask,
    check_implementation,
    mask_for_implementation,
)

# Values of each weight that enter a fingerprint.
_FINGERPRINT_VALUES = 64


class LanguageModel(nn.Module):
    """A causal language model of Transformers behind the few calls that the framework makes.

    Special tokens that a pretrained network does not know have embeddings here, not in the
    network's own embedding. They are trained and saved with the run, while the network's weights,
    tied or not, can stay as they were published.

    Args:
        network: Network with its language-modelling head.
        attention: `prefix` or `causal`, see `cmrvlm.language_model.attention_mask`.
        max_length: Longest row in tokens.
        known_tokens: Number of token ids that the network itself knows; None takes the size of its
            embedding.
        own_tokens: Number of added tokens, whose ids follow the known ones.
        source: Folder or hub name that the network came from; None if it exists nowhere else.
        packs: True if the network takes an arbitrary attention mask, so that instructions can share
            their images. If not, every row is read by itself with causal attention.
        has_published_weights: False if the source gave the architecture alone.

    Attributes:
        has_published_weights: True if the weights can be read from the source again.
        rows: (own_tokens, D) embeddings of the added tokens, or None.
        out_rows: (own_tokens, D) head weights of the added tokens where they are not tied to
            `rows`, or None.
        borrows: True if the weights are those of the source and are not trained: runs save the name
            of the source alone.
    """

    def __init__(
        self,
        network: PreTrainedModel,
        attention: Style = "prefix",
        max_length: int = 1024,
        known_tokens: int | None = None,
        own_tokens: int = 0,
        source: str | None = None,
        packs: bool = True,
        has_published_weights: bool = True,
    ) -> None:
        super().__init__()
        self.network = network
        self.source = source
        self.packs = packs
        self.has_published_weights = source is not None and has_published_weights
        self.borrows = self.has_published_weights
        self.attention: Style = attention if packs else "causal"
        self.max_length = max_length
        embedding = network.get_input_embeddings().weight
        self.known_tokens = len(embedding) if known_tokens is None else known_tokens
        self.rows = self.out_rows = None
        if own_tokens:
            self.rows = self._added_rows(embedding, own_tokens)
            if not network.config.tie_word_embeddings:
                head = network.get_output_embeddings().weight  # type: ignore[union-attr]
                self.out_rows = self._added_rows(head, own_tokens)

    def _added_rows(self, weight: Tensor, count: int) -> nn.Parameter:
        """Return rows (count, D) for added tokens: mean row of a weight (V, D) plus noise."""
        mean = weight[: self.known_tokens].detach().float().mean(dim=0)
        noise = torch.randn(count, weight.shape[1])
        # Quantized weights are loaded onto the GPU at once.
        return nn.Parameter(mean + 0.02 * noise.to(mean.device))

    @property
    def width(self) -> int:
        """Size D of the hidden states."""
        return int(self.network.config.hidden_size)

    @property
    def quantized(self) -> bool:
        """True if the weights are kept in 4 or 8 bits; those of a GGUF file no longer are."""
        return any(getattr(self.network, f"is_loaded_in_{bits}bit", False) for bits in (4, 8))

    def embed(self, ids: Tensor) -> Tensor:
        """Return the embeddings (..., L, D) of token ids (..., L)."""
        embedding = self.network.get_input_embeddings()
        if self.rows is None:
            return embedding(ids)  # type: ignore[no-any-return]
        is_added = ids >= self.known_tokens
        embeddings = embedding(ids.masked_fill(is_added, 0))
        # MiniCPM3's embedding multiplies by this factor.
        scale = getattr(self.network.config, "scale_emb", 1.0)
        added = scale * self.rows[(ids - self.known_tokens).clamp(min=0)]
        return torch.where(is_added[..., None], added.to(embeddings.dtype), embeddings)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits (..., V) of hidden states (..., D), in the precision of the head."""
        head = self.network.get_output_embeddings()
        # MiniCPM3 divides by this factor before the head.
        hidden = hidden / getattr(self.network.config, "logits_scaling", 1.0)
        hidden = hidden.to(head.weight.dtype)  # type: ignore[union-attr]
        logits: Tensor = head(hidden)  # type: ignore[misc]
        added_rows = self.rows if self.out_rows is None else self.out_rows
        if added_rows is None:
            return logits
        added_logits = (hidden @ added_rows.to(hidden.dtype).T).to(logits.dtype)
        return torch.cat([logits[..., : self.known_tokens], added_logits], dim=-1)

    def borrowed(self) -> set[str]:
        """Return the keys of the state dict whose values are those of the source."""
        if not self.borrows:
            return set()
        return {
            key for key in self.state_dict() if key.startswith("network.") and "lora_" not in key
        }

    def fingerprint(self, *, quantized: bool = False) -> str:
        """Return a hash of names, shapes and sampled values of the source's weights.

        A run is loaded only onto a source with the fingerprint that it was trained on.

        Args:
            quantized: Leave out linear layers. They are always left out when they are quantized:
                how they are kept then depends on the device, and changes when they are used.
        """
        skipped: tuple[str, ...] = ()
        if quantized or self.quantized:
            head = self.network.get_output_embeddings()
            skipped = tuple(
                f"network.{name}."
                for name, module in self.network.named_modules()
                if isinstance(module, nn.Linear | Conv1D) and module is not head
            )

        weights = self.state_dict()
        kept = [key for key in self.borrowed() if not key.startswith(skipped)]
        return values_hash({key: weights[key] for key in kept})

    def hidden(self, embeddings: Tensor, layout: Layout, cache: Any = None) -> Tensor:
        """Return the final hidden states of a batch of rows.

        Args:
            embeddings: (B, L, D) token embeddings.
            layout: Layout of the tokens (B, L), which decides the attention mask.
            cache: Empty key-value cache to fill, or None.

        Returns:
            (B, L, D) hidden states.
        """
        mask = attention_mask(layout, self.attention) if self.packs else layout.groups >= 0
        return self.forward_cached(embeddings, mask, layout.positions, cache)

    def forward_cached(
        self, embeddings: Tensor, mask: Tensor, positions: Tensor, cache: Any = None
    ) -> Tensor:
        """Run the network on new tokens after the cached ones.

        Args:
            embeddings: (B, L, D) embeddings of the new tokens.
            mask: (B, 1, L, M) bool, true where a new token may attend to one of the M tokens, of
                which the cached ones come first. For a network that does not pack, (B, M) bool,
                true for tokens and false for padding.
            positions: (B, L) positions of the new tokens.
            cache: Key-value cache to read and extend, or None.

        Returns:
            (B, L, D) final hidden states of the new tokens.
        """
        implementation = str(self.network.config._attn_implementation)
        out = self.network.base_model(
            inputs_embeds=embeddings,
            attention_mask=mask_for_implementation(mask, implementation, embeddings.dtype),
            position_ids=positions,
            cache=cache,
            use_cache=cache is not None,
        )
        return out.last_hidden_state  # type: ignore[no-any-return]


def values_hash(weights: Mapping[str, Tensor]) -> str:
    """Return a hash of names, shapes and sampled values of weights of any shape."""
    digest = hashlib.sha256()
    for key in sorted(weights):
        weight = weights[key]
        # A layer with an adapter calls its weight base_layer.
        digest.update(f"{key.replace('.base_layer', '')} {tuple(weight.shape)}".encode())
        sample = weight.flatten()[:: max(1, weight.numel() // _FINGERPRINT_VALUES)]
        digest.update(sample.float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def borrowed_keys(model: nn.Module) -> set[str]:
    """Return the keys of a model's state dict whose values are those of a published checkpoint.

    These are the untrained weights of its pretrained language model and of a frozen text tower.
    """
    keys: set[str] = set()
    llm = getattr(model, "llm", None)
    if isinstance(llm, LanguageModel):
        keys |= {f"llm.{key}" for key in llm.borrowed()}
    tower = getattr(model, "text_tower", None)
    if isinstance(tower, nn.Module) and not any(p.requires_grad for p in tower.parameters()):
        keys |= {f"text_tower.{key}" for key in tower.state_dict()}
    return keys


def tiny_language_model(
    vocab_size: int,
    family: str = "qwen3",
    hidden_size: int = 160,
    layers: int = 4,
    heads: int = 4,
    intermediate_size: int = 480,
    attention: Style = "prefix",
    attention_implementation: str = "sdpa",
    max_length: int = 1024,
) -> LanguageModel:
    """Build a small causal language model with random weights.

    Args:
        vocab_size: Size of the tokenizer.
        family: `qwen3` or `llama`.
        hidden_size: Size of the hidden states.
        layers: Number of layers.
        heads: Number of attention heads; there are half as many key-value heads.
        intermediate_size: Width of the feed-forward layers.
        attention: `prefix` or `causal`.
        attention_implementation: `sdpa` or `eager`.
        max_length: Longest row in tokens.
    """
    settings: dict[str, Any] = {
        "vocab_size": vocab_size,
        "hidden_size": hidden_size,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": max(1, heads // 2),
        "head_dim": hidden_size // heads,
        "intermediate_size": intermediate_size,
        "max_position_embeddings": max_length,
        "tie_word_embeddings": True,
        "attn_implementation": check_implementation(attention_implementation),
    }
    if family == "llama":
        network = LlamaForCausalLM(LlamaConfig(**settings))
    else:
        network = Qwen3ForCausalLM(Qwen3Config(**settings))
    return LanguageModel(network, attention, max_length)
