"""Merging of the adapter and the added tokens into the weights, for other programs to load."""

from __future__ import annotations

import torch
from peft.tuners.lora.layer import LoraLayer
from torch import nn
from transformers import PreTrainedModel

from cmrvlm.errors import CmrvlmError
from cmrvlm.language_model.network import LanguageModel


@torch.no_grad()
def merge_adapter(llm: LanguageModel) -> LanguageModel:
    """Merge low-rank adapters into the layers that they belong to; outputs stay the same.

    Raises:
        CmrvlmError: The weights are quantized, which would round what is merged.
    """
    if llm.quantized:
        raise CmrvlmError(
            "an adapter is not merged into quantized weights",
            field="llm.network.quantization",
            remedy="Load the language model without quantization.",
        )
    for name, module in list(llm.network.named_modules()):
        if isinstance(module, LoraLayer):
            assert isinstance(module, nn.Module)
            module.merge(safe_merge=True)
            parent, _, leaf = name.rpartition(".")
            setattr(llm.network.get_submodule(parent), leaf, module.get_base_layer())
    llm.borrows = False
    return llm


@torch.no_grad()
def with_own_tokens(llm: LanguageModel) -> PreTrainedModel:
    """Return the network with the added tokens in its embedding and head, in tokenizer order."""
    network = llm.network
    if llm.rows is None:
        return network
    vocab_size = llm.known_tokens + len(llm.rows)
    network.resize_token_embeddings(vocab_size, mean_resizing=False)
    embedding = network.get_input_embeddings()
    embedding.weight[llm.known_tokens :] = llm.rows.to(network.dtype)
    if llm.out_rows is not None:
        head = network.get_output_embeddings()
        head.weight[llm.known_tokens :] = llm.out_rows.to(network.dtype)  # type: ignore[union-attr]
    return network
