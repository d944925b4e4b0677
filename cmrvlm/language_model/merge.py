"""A tuned language model as others load it: additions merged into its weights, tokens of our own in its embedding."""

from __future__ import annotations

import torch
from peft.tuners.lora.layer import LoraLayer
from torch import nn
from transformers import PreTrainedModel

from cmrvlm.errors import CmrvlmError
from cmrvlm.language_model.network import LanguageModel


@torch.no_grad()
def merge_adapter(llm: LanguageModel) -> LanguageModel:
    """Merge low-rank additions into the layers that they belong to; the model says the same as before.

    Raises:
        CmrvlmError: Its weights are quantized: what is merged into them is rounded.
    """
    if llm.quantized:
        raise CmrvlmError(
            "additions are not merged into quantized weights",
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
    """The model with rows for the tokens of our own in its embedding and head, as its tokenizer numbers them."""
    network, own = llm.network, llm.rows
    if own is None:
        return network
    count = llm.known_tokens + len(own)
    network.resize_token_embeddings(count, mean_resizing=False)
    network.get_input_embeddings().weight[llm.known_tokens :] = own.to(network.dtype)
    if llm.out_rows is not None:
        network.get_output_embeddings().weight[llm.known_tokens :] = llm.out_rows.to(network.dtype)  # type: ignore[union-attr]
    return network
