"""The language model as the framework uses it: embeddings in, hidden states and logits out, greedy decoding."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from cmrvlm.models.attention_mask import Layout, Style, allowed, for_implementation


class LanguageModel(nn.Module):
    """A causal language model of Transformers behind the few calls that the framework makes.

    Args:
        network: The model with its head.
        attention: `prefix` or `causal`, see `cmrvlm.models.attention_mask`.
        max_length: Longest row in tokens.
    """

    def __init__(self, network: PreTrainedModel, attention: Style = "prefix", max_length: int = 1024) -> None:
        super().__init__()
        self.network = network
        self.attention: Style = attention
        self.max_length = max_length

    @property
    def width(self) -> int:
        """Size of the hidden states."""
        return int(self.network.config.hidden_size)

    def embed(self, ids: Tensor) -> Tensor:
        """Token ids (..., L) to embeddings (..., L, D)."""
        return self.network.get_input_embeddings()(ids)  # type: ignore[no-any-return]

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states (..., D) to logits (..., V)."""
        return self.network.get_output_embeddings()(hidden)  # type: ignore[no-any-return, misc]

    def hidden(self, embeddings: Tensor, layout: Layout, cache: Any = None) -> Tensor:
        """Final hidden states.

        Args:
            embeddings: (B, L, D).
            layout: Where each token belongs.
            cache: Key-value cache that is filled, or None.

        Returns:
            (B, L, D).
        """
        return self.go_on(embeddings, allowed(layout, self.attention), layout.positions, cache)

    def go_on(self, embeddings: Tensor, mask: Tensor, positions: Tensor, cache: Any = None) -> Tensor:
        """Final hidden states (B, L, D) behind what a cache holds.

        Args:
            embeddings: (B, L, D).
            mask: (B, 1, L, M) bool, true where a token may read one of the M, those of the cache first.
            positions: (B, L) places of the tokens.
            cache: Key-value cache that is read and filled, or None.
        """
        implementation = str(self.network.config._attn_implementation)
        out = self.network.base_model(
            inputs_embeds=embeddings,
            attention_mask=for_implementation(mask, implementation, embeddings.dtype),
            position_ids=positions,
            cache=cache,
            use_cache=cache is not None,
        )
        return out.last_hidden_state  # type: ignore[no-any-return]


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
        "attn_implementation": attention_implementation,
    }
    network = (
        LlamaForCausalLM(LlamaConfig(**settings)) if family == "llama" else Qwen3ForCausalLM(Qwen3Config(**settings))
    )
    return LanguageModel(network, attention, max_length)
