"""The language model as the framework uses it: embeddings in, hidden states and logits out, greedy decoding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM, PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

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
        mask = allowed(layout, self.attention)
        out = self.network.base_model(
            inputs_embeds=embeddings,
            attention_mask=self._as_taken(mask, embeddings.dtype),
            position_ids=layout.positions,
            cache=cache,
            use_cache=cache is not None,
        )
        return out.last_hidden_state  # type: ignore[no-any-return]

    def _as_taken(self, mask: Tensor, dtype: torch.dtype) -> Any:
        return for_implementation(mask, str(self.network.config._attn_implementation), dtype)

    @torch.no_grad()
    def generate(
        self,
        embeddings: Tensor,
        valid: Tensor,
        image_lengths: Tensor,
        end_id: int,
        max_new_tokens: int,
        allowed: Sequence[Sequence[Sequence[int]]] = (),
    ) -> list[list[int]]:
        """Greedy answers to prompts that are padded on the left.

        Rows that have ended are taken out of the batch, so that one long answer does not keep all of them running.

        Args:
            embeddings: (R, L, D) prompts.
            valid: (R, L) true for tokens.
            image_lengths: (R,) tokens of begin and images.
            end_id: Token that ends an answer.
            max_new_tokens: Longest answer.
            allowed: For each row all answers that it may give, with the end token; a row with none is free.

        Returns:
            New token ids of each row, without the end token.
        """
        cache = DynamicCache(config=self.network.config)
        layout = Layout.of_rows(valid, image_lengths, valid.sum(dim=1))
        last = self.hidden(embeddings, layout, cache)[:, -1]  # (R, D)
        active = torch.arange(len(valid), device=valid.device)
        answers: list[list[int]] = [[] for _ in range(len(valid))]
        seen, counts = valid, valid.sum(dim=1)
        for _ in range(max_new_tokens):
            logits = self.logits(last)  # (active, V)
            for index, row in enumerate(active.tolist() if allowed else ()):
                if allowed[row]:
                    logits[index] = only_next(logits[index], answers[row], allowed[row])
            chosen = logits.argmax(dim=-1)
            going = chosen != end_id
            for row, token in zip(active[going].tolist(), chosen[going].tolist(), strict=True):
                answers[row].append(token)
            if not bool(going.any()):
                break
            if not bool(going.all()):
                keep = going.nonzero()[:, 0]
                cache.batch_select_indices(keep)
                active, seen, counts, chosen = active[keep], seen[keep], counts[keep], chosen[keep]
            seen = torch.cat([seen, torch.ones_like(seen[:, :1])], dim=1)
            last = self._step(chosen, seen, counts, cache)
            counts = counts + 1
        return answers

    def _step(self, tokens: Tensor, seen: Tensor, counts: Tensor, cache: Any) -> Tensor:
        mask = seen[:, None, None, :]  # (active, 1, 1, L): a new token reads all that is before it
        embeddings = self.embed(tokens[:, None])
        out = self.network.base_model(
            inputs_embeds=embeddings,
            attention_mask=self._as_taken(mask, embeddings.dtype),
            position_ids=counts[:, None],
            cache=cache,
            use_cache=True,
        )
        return out.last_hidden_state[:, -1]  # type: ignore[no-any-return]


def only_next(logits: Tensor, said: Sequence[int], allowed: Sequence[Sequence[int]]) -> Tensor:
    """Logits (V,) with everything forbidden but the tokens that go on towards an allowed answer.

    Args:
        logits: Of the next token.
        said: Tokens so far.
        allowed: All answers, with the end token.
    """
    count = len(said)
    following = {one[count] for one in allowed if len(one) > count and list(one[:count]) == list(said)}
    kept = torch.full_like(logits, float("-inf"))
    places = torch.tensor(sorted(following), device=logits.device)
    kept[places] = logits[places]
    return kept


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
