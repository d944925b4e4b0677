"""Pretrained language models from a folder, the hub, or a GGUF file of a Python package."""

from __future__ import annotations

import importlib.util
import logging
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    DynamicCache,
    PretrainedConfig,
    PreTrainedModel,
)

from cmrvlm.config.model_folder import reading_model
from cmrvlm.config.model_source import source_of
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

QUANTIZATIONS = ("nf4", "fp4", "int8")
# Data types of weights by the names that torch gives them.
DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}

# Tokens on which a network's attention is tried: two images, behind them an instruction with one
# question token and two answer tokens, and an instruction with two question tokens and one answer
# token.
_PROBE = Layout(
    groups=torch.tensor([[0, 0, 0, 0, 0, 0, 0, 0]]),
    rows=torch.tensor([[0, 0, 0, 0, 0, 1, 1, 1]]),
    blocks=torch.tensor([[IMAGES, IMAGES, QUESTION, ANSWER, ANSWER, QUESTION, QUESTION, ANSWER]]),
    positions=torch.tensor([[0, 1, 2, 3, 4, 2, 3, 4]]),
)
# Indices of the tokens, images included, of each of the two instructions.
_PROBE_INSTRUCTIONS = ([0, 1, 2, 3, 4], [0, 1, 5, 6, 7])


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
    """Load a causal language model of Transformers, without any code from the hub.

    Args:
        vocab_size: Size of the tokenizer with the special tokens.
        path: Folder, hub name, or GGUF file.
        package: Package with a GGUF file, in place of a path.
        attention: `prefix` or `causal`.
        attention_implementation: `sdpa`, `eager`, `flex_attention` (on a GPU), or one of
            Transformers that takes no arbitrary mask, such as `flash_attention_2`: then
            instructions share no images, and a warning says so.
        max_length: Longest row in tokens; None takes the model's own limit.
        dtype: Data type of the weights, one of `DTYPES`.
        revision: Branch, tag or commit on the hub.
        quantization: One of `QUANTIZATIONS`, or None.
        gradient_checkpointing: Compute activations again in the backward pass instead of keeping
            them.
        weights: Load the weights; if not, the architecture is built with random ones.

    Returns:
        The language model, with new embeddings for the special tokens.

    Raises:
        CmrvlmError: The model cannot be loaded with these settings.
    """
    check_implementation(attention_implementation)
    source, source_arguments = source_of(path, package)
    if revision:
        source_arguments["revision"] = revision
    settings = {"dtype": check_dtype(dtype), "attn_implementation": attention_implementation}
    network, longest = _load_network(
        source, source_arguments, settings, max_length, quantization, weights
    )
    if gradient_checkpointing:
        # Reentrant checkpointing learns nothing if the input embeddings need no gradient.
        network.gradient_checkpointing_enable({"use_reentrant": False})
    return LanguageModel(
        network,
        attention,
        longest,
        known_tokens=vocab_size - len(SPECIAL_TOKENS),
        own_tokens=len(SPECIAL_TOKENS),
        source=source,
        packs=_can_pack(network, source),
        has_published_weights=weights,
    )


def check_dtype(name: str) -> torch.dtype:
    """Return the data type of a name.

    Raises:
        CmrvlmError: No weights are kept in such a type.
    """
    if name not in DTYPES:
        raise CmrvlmError(
            f"unknown data type '{name}'",
            field="llm.network.dtype",
            remedy=f"Known: {', '.join(DTYPES)}.",
        )
    return DTYPES[name]


def _load_network(
    source: str,
    source_arguments: dict[str, Any],
    settings: dict[str, Any],
    max_length: int | None,
    quantization: str | None,
    weights: bool,
) -> tuple[PreTrainedModel, int]:
    """Load the network and return it with its longest row in tokens.

    Args:
        source: Folder or hub name.
        source_arguments: Arguments of `from_pretrained` that say which file or revision to load.
        settings: Arguments for the data type and the attention implementation.
        max_length: Longest row that is asked for, in tokens, or None.
        quantization: One of `QUANTIZATIONS`, or None.
        weights: Load the weights; if not, the architecture is built with random ones.

    Raises:
        CmrvlmError: It cannot be loaded, or its weights are not finite.
    """
    remedy = (
        "Give a folder that save_pretrained wrote, or a name on the hub; gated models need a "
        "login, and a machine without network a folder."
    )
    # Without weights a folder may hold none; whoever builds the network knows how large it may be.
    with reading_model(
        source, "llm.network", remedy, source_arguments.get("gguf_file"), has_weights=weights
    ):
        config = AutoConfig.from_pretrained(source, trust_remote_code=False, **source_arguments)
        longest = _longest_row(config, max_length)
        if not weights:
            network = AutoModelForCausalLM.from_config(config, trust_remote_code=False, **settings)
            return network, longest
        network = AutoModelForCausalLM.from_pretrained(
            source,
            trust_remote_code=False,
            **settings,
            **_quantization_arguments(quantization, settings["dtype"]),
            **source_arguments,
        )
    check_weights(
        network.named_parameters(), source, "llm.network", "Use the model as it was published."
    )
    return network, longest


def _quantization_arguments(quantization: str | None, dtype: torch.dtype) -> dict[str, Any]:
    """Return the arguments with which `from_pretrained` quantizes the weights.

    Raises:
        CmrvlmError: The quantization is unknown, or bitsandbytes is not installed.
    """
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
        config = BitsAndBytesConfig(load_in_8bit=True)
    else:
        config = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type=quantization, bnb_4bit_compute_dtype=dtype
        )
    return {"quantization_config": config}


def _longest_row(config: PretrainedConfig, max_length: int | None) -> int:
    """Return the longest row in tokens: `max_length`, or the model's own limit.

    Raises:
        CmrvlmError: The model states no limit and none is given, or the one given is beyond the
            model's.
    """
    limit = _model_limit(config)
    longest = limit if max_length is None else max_length
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


def _model_limit(config: PretrainedConfig) -> int | None:
    """Return the longest row that a model reads, in tokens, or None if it states none."""
    text = config.get_text_config()
    limit: int | None = getattr(text, "max_position_embeddings", None)
    window: int | None = getattr(text, "sliding_window", None)
    # A configuration with a window and no list of layer types uses the window in all layers.
    layer_types = getattr(text, "layer_types", None) or ["sliding_attention"]
    if limit and window and "sliding_attention" in layer_types:
        # Such a layer does not attend beyond its window, which our attention masks do not take into
        # account.
        return min(limit, window)
    return limit


def _can_pack(network: PreTrainedModel, source: str) -> bool:
    """Return True if instructions can share their images; log a warning if not.

    Raises:
        CmrvlmError: The network cannot share a key-value cache either, which decoding needs.
    """
    if not can_share_cache(network):
        raise CmrvlmError(
            "the language model keeps a recurrent state, which the rows of a study cannot share",
            file=source,
            field="llm.network",
            remedy="Use one with attention in every layer.",
        )
    packs = takes_masks(network)
    if not packs:
        log.warning(
            "the language model takes no mask of who may read whom: each instruction is read by "
            "itself, with its own copy of the images, and attention is causal"
        )
    return packs


def can_share_cache(network: PreTrainedModel) -> bool:
    """Return True if several prompts can continue from one cache of their images.

    Rows of keys and values can be selected; those of a recurrent state cannot.
    """
    layers = DynamicCache(config=network.config).layers
    return all(hasattr(layer, "batch_select_indices") for layer in layers)


@torch.no_grad()
def takes_masks(network: PreTrainedModel) -> bool:
    """Return True if the network attends as an arbitrary attention mask says.

    SDPA and eager attention are tried on a few random tokens: two instructions behind one copy of
    their images must give the hidden states that each gives by itself. FlexAttention, which needs a
    GPU, is taken to pass; other implementations take no such mask.
    """
    implementation = str(network.config._attn_implementation)
    if implementation == "flex_attention":
        return True
    if implementation not in ("sdpa", "eager"):
        return False

    was_training = network.training
    network.eval()
    try:
        return _packed_equals_separate(network)
    except (TypeError, ValueError, RuntimeError, IndexError):
        # A network that knows no such masks fails on their shape or type.
        return False
    finally:
        network.train(was_training)


def _packed_equals_separate(network: PreTrainedModel) -> bool:
    """Return True if the probe's instructions have the same hidden states packed and separately."""
    llm = LanguageModel(network)
    weight = network.get_input_embeddings().weight
    generator = torch.Generator().manual_seed(0)
    shape = (*_PROBE.rows.shape, weight.shape[1])  # (1, L, D)
    # On the CPU, where its generator is, whatever the default device is.
    embeddings = torch.randn(shape, generator=generator, device="cpu").to(weight)
    tolerance = max(1e-4, 8 * torch.finfo(weight.dtype).eps)

    every_token = list(range(shape[1]))
    packed = llm.hidden(embeddings, _probe_layout(every_token, weight.device))
    for tokens in _PROBE_INSTRUCTIONS:
        layout = _probe_layout(tokens, weight.device)
        separate = llm.hidden(embeddings[:, tokens], layout)
        largest = float(separate.abs().max())
        if not torch.allclose(packed[:, tokens], separate, atol=tolerance * largest, rtol=0.0):
            return False
    return True


def _probe_layout(tokens: list[int], device: torch.device) -> Layout:
    """Return the layout of some tokens of the probe."""

    def select(values: Tensor) -> Tensor:
        return values[:, tokens].to(device)

    return Layout(
        groups=select(_PROBE.groups),
        rows=select(_PROBE.rows),
        blocks=select(_PROBE.blocks),
        positions=select(_PROBE.positions),
    )
