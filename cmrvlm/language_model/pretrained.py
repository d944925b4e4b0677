"""Language models as people have them: a folder, a name on the hub, or a GGUF file that a Python package carries."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    DynamicCache,
    PretrainedConfig,
    PreTrainedModel,
)

from cmrvlm.config.model_source import check_no_adapter, source_of
from cmrvlm.errors import CmrvlmError
from cmrvlm.instructions.tokens import SPECIAL_TOKENS
from cmrvlm.language_model.attention_mask import (
    ANSWER,
    IMAGES,
    QUESTION,
    Layout,
    Style,
    check_implementation,
)
from cmrvlm.language_model.finite import check_weights
from cmrvlm.language_model.network import LanguageModel

log = logging.getLogger(__name__)

# Two images and behind them two rows, of one question and two answer tokens and of two and one; places of each row.
_TRIED = Layout(
    *(
        torch.tensor([own])
        for own in (
            [0] * 8,
            [0, 0, 0, 0, 0, 1, 1, 1],
            [IMAGES, IMAGES, QUESTION, ANSWER, ANSWER, QUESTION, QUESTION, ANSWER],
            [0, 1, 2, 3, 4, 2, 3, 4],
        )
    )
)
_PLACES = ([0, 1, 2, 3, 4], [0, 1, 5, 6, 7])
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
        attention_implementation: `sdpa`, `eager`, `flex_attention` (on a GPU), or one that Transformers knows and that
            takes no mask, such as `flash_attention_2`: then no images are shared, which is said.
        max_length: Longest row; None takes the model's own limit.
        dtype: Of the weights, for example `float32` or `bfloat16`.
        revision: Branch, tag or commit on the hub.
        quantization: One of `QUANTIZATIONS`, or None.
        gradient_checkpointing: Compute activations again in the backward pass in place of keeping them.
        weights: Whether to load them; without, the architecture alone is built.

    Raises:
        CmrvlmError: The model cannot be had as asked.
    """
    check_implementation(attention_implementation)
    where, told = source_of(path, package)
    told |= {"revision": revision} if revision else {}
    check_no_adapter(where, "llm.network")
    try:
        config = AutoConfig.from_pretrained(where, trust_remote_code=False, **told)
        longest = _longest(config, max_length)
        kind = getattr(torch, dtype)
        if weights:
            network = AutoModelForCausalLM.from_pretrained(
                where,
                trust_remote_code=False,
                dtype=kind,
                attn_implementation=attention_implementation,
                **_quantized(quantization, kind),
                **told,
            )
        else:
            network = AutoModelForCausalLM.from_config(
                config,
                trust_remote_code=False,
                dtype=kind,
                attn_implementation=attention_implementation,
            )
    except (OSError, ValueError, ImportError) as error:
        raise CmrvlmError(
            f"the language model cannot be loaded ({error})",
            file=where,
            field="llm.network",
            remedy="Give a folder that save_pretrained wrote, or a name on the hub; gated models need a "
            "login, and a machine without network a folder.",
        ) from error
    if weights:
        check_weights(
            network.named_parameters(), where, "llm.network", "Use the model as it was published."
        )
    if gradient_checkpointing:
        # Reentrant checkpointing learns nothing when the embeddings that come in need no gradient.
        network.gradient_checkpointing_enable({"use_reentrant": False})
    own = len(SPECIAL_TOKENS)
    return LanguageModel(
        network,
        attention,
        longest,
        known_tokens=vocab_size - own,
        own_tokens=own,
        source=where,
        packs=_packs(network, where),
    )


def _packs(network: PreTrainedModel, where: str) -> bool:
    """Whether instructions can share their images; that they cannot is said.

    Raises:
        CmrvlmError: The network cannot even go on behind what it read.
    """
    if not can_share_cache(network):
        raise CmrvlmError(
            "the language model keeps a recurrent state, which the rows of a study cannot share",
            file=where,
            field="llm.network",
            remedy="Use one with attention in every layer.",
        )
    packs = takes_masks(network)
    if not packs:
        log.warning(
            "the language model takes no mask of who may read whom: each instruction is read by itself, with "
            "its own copy of the images, and attention is causal"
        )
    return packs


def _longest(config: PretrainedConfig, asked: int | None) -> int:
    """The longest row in tokens: what is asked for, or the model's own limit."""
    text = config.get_text_config()
    limit = getattr(text, "max_position_embeddings", None)
    if "sliding_attention" in (getattr(text, "layer_types", None) or ["sliding_attention"]):
        # Behind its window such a layer forgets, which a mask of who may read whom does not say.
        limit = (
            min(one for one in (limit, getattr(text, "sliding_window", None)) if one)
            if limit
            else limit
        )
    longest = limit if asked is None else asked
    if longest is None:
        raise CmrvlmError(
            "the model states no longest row",
            field="llm.network.max_length",
            remedy="Give the longest row, in tokens.",
        )
    if limit is not None and longest > limit:
        raise CmrvlmError(
            f"the model reads {limit} tokens, {longest} are asked for",
            field="llm.network.max_length",
            remedy=f"Use at most {limit}.",
        )
    return int(longest)


@torch.no_grad()
def takes_masks(network: PreTrainedModel) -> bool:
    """Whether rows behind one copy of their images are read as each by itself; tried out on a few random tokens.

    FlexAttention, which needs a GPU, is taken to do so, and other implementations than it, SDPA and eager not to.
    """
    implementation = str(network.config._attn_implementation)
    if implementation not in ("sdpa", "eager"):
        return implementation == "flex_attention"
    weight, llm = network.get_input_embeddings().weight, LanguageModel(network)
    device = weight.device
    shared, alone = _on(device), [_on(device, places) for places in _PLACES]
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(1, shared.rows.shape[1], weight.shape[1], generator=generator).to(weight)
    was = network.training
    network.eval()
    try:
        together = llm.hidden(tokens, shared)
        apart = [
            llm.hidden(tokens[:, places], layout)
            for places, layout in zip(_PLACES, alone, strict=True)
        ]
    except (TypeError, ValueError, RuntimeError, IndexError):
        return False  # what a network says that knows no such masks
    finally:
        network.train(was)
    slack = max(1e-4, 8 * torch.finfo(weight.dtype).eps)
    return all(
        bool(
            torch.allclose(together[:, places], own, atol=slack * float(own.abs().max()), rtol=0.0)
        )
        for places, own in zip(_PLACES, apart, strict=True)
    )


def _on(device: torch.device, places: Sequence[int] | None = None) -> Layout:
    """The layout that is tried out, or that of one of its rows by itself."""
    chosen = slice(None) if places is None else list(places)
    return Layout(*(getattr(_TRIED, one.name)[:, chosen].to(device) for one in fields(Layout)))


def can_share_cache(network: PreTrainedModel) -> bool:
    """Whether what was read of images can go on in several rows: a recurrent state cannot be picked by rows."""
    layers = DynamicCache(config=network.config).layers
    return all(hasattr(layer, "batch_select_indices") for layer in layers)


def _quantized(quantization: str | None, dtype: torch.dtype) -> dict[str, Any]:
    if quantization is None:
        return {}
    if quantization not in QUANTIZATIONS:
        raise CmrvlmError(
            f"unknown quantization '{quantization}'",
            field="llm.network.quantization",
            remedy=f"Known: {', '.join(QUANTIZATIONS)}.",
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        raise CmrvlmError(
            "quantized weights need bitsandbytes",
            field="llm.network.quantization",
            remedy="pip install 'cmrvlm[quant]'",
        )
    if quantization == "int8":
        return {"quantization_config": BitsAndBytesConfig(load_in_8bit=True)}
    return {
        "quantization_config": BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type=quantization, bnb_4bit_compute_dtype=dtype
        )
    }
