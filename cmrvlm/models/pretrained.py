"""Language models as people have them: a folder, a name on the hub, or a GGUF file that a Python package carries."""

from __future__ import annotations

import importlib.util
import logging
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig, PretrainedConfig, PreTrainedModel

from cmrvlm.errors import CmrvlmError
from cmrvlm.models.attention_mask import Style
from cmrvlm.models.language_model import LanguageModel
from cmrvlm.text.pretrained import source_of
from cmrvlm.text.tokens import SPECIAL_TOKENS

log = logging.getLogger(__name__)

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
    where, told = source_of(path, package)
    told |= {"revision": revision} if revision else {}
    try:
        config = AutoConfig.from_pretrained(where, trust_remote_code=False, **told)
        longest = _longest(config, max_length)
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
    packs = takes_masks(network)
    if not packs:
        log.warning("the language model takes no mask of who may read whom: each instruction is read by itself, with "
                    "its own copy of the images, and attention is causal")  # fmt: skip
    own = len(SPECIAL_TOKENS)
    return LanguageModel(network, attention, longest, known_tokens=vocab_size - own, own_tokens=own,
                         source=where, packs=packs)  # fmt: skip


def _longest(config: PretrainedConfig, asked: int | None) -> int:
    """The longest row in tokens: what is asked for, or the model's own limit."""
    limit = getattr(config.get_text_config(), "max_position_embeddings", None)
    longest = limit if asked is None else asked
    if longest is None:
        raise CmrvlmError("the model states no longest row", field="llm.network.max_length",
                          remedy="Give the longest row, in tokens.")  # fmt: skip
    if limit is not None and longest > limit:
        raise CmrvlmError(f"the model reads {limit} tokens, {longest} are asked for", field="llm.network.max_length",
                          remedy=f"Use at most {limit}.")  # fmt: skip
    return int(longest)


@torch.no_grad()
def takes_masks(network: PreTrainedModel) -> bool:
    """Whether a network reads exactly what a mask (B, 1, L, L) lets each token read; tried out on four tokens.

    FlexAttention, which needs a GPU, is taken to do so, and other implementations than it, SDPA and eager not to.
    """
    implementation = str(network.config._attn_implementation)
    if implementation not in ("sdpa", "eager"):
        return implementation == "flex_attention"
    weight = network.get_input_embeddings().weight
    tokens = torch.randn(1, 4, weight.shape[1], generator=torch.Generator().manual_seed(0)).to(weight)
    mask = torch.eye(4, dtype=torch.bool, device=weight.device)[None, None]
    mask[..., 0, 3] = mask[..., 3, 0] = True  # the first and the last read each other, and nobody else anybody
    llm = LanguageModel(network)
    was, places = network.training, torch.arange(4, device=weight.device)[None]

    def read(changed: int) -> torch.Tensor:
        own = tokens.clone()
        own[:, changed] *= -1
        return llm.go_on(own, mask, places)[0]

    network.eval()
    try:
        before, after = read(1), read(3)
    except (TypeError, ValueError, RuntimeError, IndexError):
        return False  # what a network says that knows no such masks
    finally:
        network.train(was)
    same = [bool(torch.allclose(one, two, atol=1e-3)) for one, two in zip(before, after, strict=True)]
    return same == [False, False, True, False]


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
