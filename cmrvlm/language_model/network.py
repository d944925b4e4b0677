"""The language model as the framework uses it: embeddings in, hidden states and logits out, greedy decoding."""

from __future__ import annotations

import hashlib
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

_SAMPLED = 64  # values of each weight in a fingerprint


class LanguageModel(nn.Module):
    """A causal language model of Transformers behind the few calls that the framework makes.

    Tokens that a pretrained model does not know have rows of their own, here and not in its embedding: they are trained
    and saved whatever becomes of the model's own weights, which stay as they came, tied or not.

    Args:
        network: The model with its head.
        attention: `prefix` or `causal`, see `cmrvlm.language_model.attention_mask`.
        max_length: Longest row in tokens.
        known_tokens: Token ids below it are the model's own; None takes all that it has.
        own_tokens: Tokens behind them that the model does not know.
        source: Folder or name that the weights came from; None when they exist nowhere else.
        packs: The network takes a mask of who may read whom, so that instructions can share their images. Without it
            every row is read by itself, and attention is causal.

    Attributes:
        borrows: The weights are those of the source and are not trained: runs keep the name of the source alone.
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
    ) -> None:
        super().__init__()
        self.network, self.source, self.packs = network, source, packs
        self.borrows = source is not None
        self.attention: Style = attention if packs else "causal"
        self.max_length = max_length
        known = network.get_input_embeddings().weight
        self.known_tokens = len(known) if known_tokens is None else known_tokens
        self.rows = self.out_rows = None
        if own_tokens:
            mean = known[: self.known_tokens].detach().float().mean(dim=0)
            self.rows = nn.Parameter(mean + 0.02 * torch.randn(own_tokens, known.shape[1]))
            if not network.config.tie_word_embeddings:
                out = network.get_output_embeddings().weight  # type: ignore[union-attr]
                mean = out[: self.known_tokens].detach().float().mean(dim=0)
                self.out_rows = nn.Parameter(mean + 0.02 * torch.randn(own_tokens, known.shape[1]))

    @property
    def width(self) -> int:
        """Size of the hidden states."""
        return int(self.network.config.hidden_size)

    @property
    def quantized(self) -> bool:
        """Whether its weights are in 4 or 8 bits; those of a GGUF file were too, and are not any more."""
        return any(getattr(self.network, f"is_loaded_in_{bits}bit", False) for bits in (4, 8))

    def embed(self, ids: Tensor) -> Tensor:
        """Token ids (..., L) to embeddings (..., L, D)."""
        known = self.network.get_input_embeddings()
        if self.rows is None:
            return known(ids)  # type: ignore[no-any-return]
        own = ids >= self.known_tokens
        embeddings = known(ids.masked_fill(own, 0))
        scale = getattr(
            self.network.config, "scale_emb", 1.0
        )  # MiniCPM3's embedding multiplies by it
        rows = (scale * self.rows[(ids - self.known_tokens).clamp(min=0)]).to(embeddings.dtype)
        return torch.where(own[..., None], rows, embeddings)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return logits (..., V) of hidden states (..., D), which may be in another precision than the head."""
        head = self.network.get_output_embeddings()
        hidden = hidden / getattr(
            self.network.config, "logits_scaling", 1.0
        )  # MiniCPM3 divides by it before the head
        hidden = hidden.to(head.weight.dtype)  # type: ignore[union-attr]
        logits: Tensor = head(hidden)  # type: ignore[misc]
        rows = self.rows if self.out_rows is None else self.out_rows
        if rows is None:
            return logits
        own = (hidden @ rows.to(hidden.dtype).T).to(logits.dtype)
        return torch.cat([logits[..., : self.known_tokens], own], dim=-1)

    def borrowed(self) -> set[str]:
        """Keys of the state dict that hold what the source holds."""
        return {
            key
            for key in self.state_dict()
            if self.borrows and key.startswith("network.") and "lora_" not in key
        }

    def fingerprint(self, *, quantized: bool = False) -> str:
        """Hash of names, shapes and a sample of the values of what is borrowed, to know the source again.

        Args:
            quantized: Leave out linear layers, as is always done when they are quantized: how those are kept depends on
                the device, and changes when they are used.
        """
        digest, weights = hashlib.sha256(), self.state_dict()
        head, skipped = self.network.get_output_embeddings(), tuple[str, ...]()
        if quantized or self.quantized:
            skipped = tuple(
                f"network.{name}."
                for name, module in self.network.named_modules()
                if isinstance(module, nn.Linear | Conv1D) and module is not head
            )
        for key in sorted(key for key in self.borrowed() if not key.startswith(skipped)):
            value = weights[key]
            some = value.flatten()[:: max(1, value.numel() // _SAMPLED)]
            digest.update(f"{key.replace('.base_layer', '')} {tuple(value.shape)}".encode())
            digest.update(some.float().cpu().numpy().tobytes())
        return digest.hexdigest()[:16]

    def hidden(self, embeddings: Tensor, layout: Layout, cache: Any = None) -> Tensor:
        """Final hidden states.

        Args:
            embeddings: (B, L, D).
            layout: Where each token belongs.
            cache: Key-value cache that is filled, or None.

        Returns:
            (B, L, D).
        """
        mask = attention_mask(layout, self.attention) if self.packs else layout.groups >= 0
        return self.forward_cached(embeddings, mask, layout.positions, cache)

    def forward_cached(
        self, embeddings: Tensor, mask: Tensor, positions: Tensor, cache: Any = None
    ) -> Tensor:
        """Final hidden states (B, L, D) behind what a cache holds.

        Args:
            embeddings: (B, L, D).
            mask: (B, 1, L, M) bool, true where a token may read one of the M, those of the cache first; for a network
                that does not pack, (B, M), true for tokens.
            positions: (B, L) places of the tokens.
            cache: Key-value cache that is read and filled, or None.
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


def borrowed_keys(model: nn.Module) -> set[str]:
    """Keys of the state dict that a pretrained language model or text tower brought and that nothing changes."""
    llm, tower = getattr(model, "llm", None), getattr(model, "text_tower", None)
    keys = {f"llm.{key}" for key in llm.borrowed()} if isinstance(llm, LanguageModel) else set()
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
    """A small causal model from a configuration, with random weights.

    Args:
        vocab_size: Size of the tokenizer.
        family: `qwen3` or `llama`.
        hidden_size: Width.
        layers: Number of layers.
        heads: Attention heads; half as many key-value heads.
        intermediate_size: Width of the feed-forward layers.
        attention: `prefix` or `causal`.
        attention_implementation: `sdpa` or `eager`.
        max_length: Context length.
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
    network = (
        LlamaForCausalLM(LlamaConfig(**settings))
        if family == "llama"
        else Qwen3ForCausalLM(Qwen3Config(**settings))
    )
    return LanguageModel(network, attention, max_length)
