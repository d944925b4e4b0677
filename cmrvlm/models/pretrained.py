"""Language models as people have them: a folder, a name on the hub, or a GGUF file that a Python package carries."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig

from cmrvlm.errors import CmrvlmError
from cmrvlm.models.attention_mask import Style
from cmrvlm.models.language_model import LanguageModel
from cmrvlm.text.pretrained import source_of
from cmrvlm.text.tokens import SPECIAL_TOKENS

QUANTIZATIONS = ("nf4", "fp4", "int8")


def pretrained_language_model(
    vocab_size: int,
    path: str | None = None,
    package: str | None = None,
    attention: Style = "prefix",
    attention_implementation: str = "sdpa",
    max_length: int | None = None,
    dtype: str = "float32",
    revision: str | None = None,
    quantization: str | None = None,
    gradient_checkpointing: bool = False,
    weights: bool = True,
) -> LanguageModel:
    """A causal model of Transformers, without any code from the hub, with rows of its own for the special tokens.

    Args:
        vocab_size: Size of the tokenizer with the special tokens.
        path: Folder, hub name, or GGUF file.
        package: Package with a GGUF file, in place of a path.
        attention: `prefix` or `causal`.
        attention_implementation: `sdpa` or `eager`.
        max_length: Longest row; None takes the model's own limit.
        dtype: Of the weights, for example `float32` or `bfloat16`.
        revision: Branch, tag or commit on the hub.
        quantization: One of `QUANTIZATIONS`, or None.
        gradient_checkpointing: Compute activations again in the backward pass in place of keeping them.
        weights: Whether to load them; without, the architecture alone is built.

    Raises:
        CmrvlmError: The model cannot be had as asked.
    """
    where, told = source_of(path, package)
    told |= {"revision": revision} if revision else {}
    try:
        config = AutoConfig.from_pretrained(where, trust_remote_code=False, **told)
        limit = int(config.max_position_embeddings)
        if max_length is not None and max_length > limit:
            raise CmrvlmError(f"the model reads {limit} tokens, {max_length} are asked for",
                              field="llm.network.max_length", remedy=f"Use at most {limit}.")  # fmt: skip
        kind = getattr(torch, dtype)
        if weights:
            network = AutoModelForCausalLM.from_pretrained(
                where, trust_remote_code=False, dtype=kind, attn_implementation=attention_implementation,
                **_quantized(quantization, kind), **told)  # fmt: skip
        else:
            network = AutoModelForCausalLM.from_config(config, dtype=kind, attn_implementation=attention_implementation)
    except (OSError, ValueError, ImportError) as error:
        raise CmrvlmError(f"the language model cannot be loaded ({error})", file=where, field="llm.network",
                          remedy="Give a folder that save_pretrained wrote, or a name on the hub; gated models need a "
                                 "login, and a machine without network a folder.") from error  # fmt: skip
    if gradient_checkpointing:
        # Reentrant checkpointing learns nothing when the embeddings that come in need no gradient.
        network.gradient_checkpointing_enable({"use_reentrant": False})
    own = len(SPECIAL_TOKENS)
    return LanguageModel(network, attention, max_length or limit, known_tokens=vocab_size - own, own_tokens=own,
                         source=where)  # fmt: skip


def _quantized(quantization: str | None, dtype: torch.dtype) -> dict[str, Any]:
    if quantization is None:
        return {}
    if quantization not in QUANTIZATIONS:
        raise CmrvlmError(f"unknown quantization '{quantization}'", field="llm.network.quantization",
                          remedy=f"Known: {', '.join(QUANTIZATIONS)}.")  # fmt: skip
    if importlib.util.find_spec("bitsandbytes") is None:
        raise CmrvlmError("quantized weights need bitsandbytes", field="llm.network.quantization",
                          remedy="pip install 'cmrvlm[quant]'")  # fmt: skip
    if quantization == "int8":
        return {"quantization_config": BitsAndBytesConfig(load_in_8bit=True)}
    return {"quantization_config": BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type=quantization,
                                                      bnb_4bit_compute_dtype=dtype)}  # fmt: skip
