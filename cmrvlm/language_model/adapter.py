"""Which weights of the language model are trained: none, all, or those of a low-rank adapter."""

from __future__ import annotations

from collections.abc import Sequence

from peft import LoraConfig, inject_adapter_in_model
from peft.functional import cast_adapter_dtype
from torch import nn

from cmrvlm.errors import CmrvlmError
from cmrvlm.language_model.network import LanguageModel

ALL_LINEAR = "all-linear"


def frozen(llm: LanguageModel) -> LanguageModel:
    """Freeze the language model, all but the embeddings of the added special tokens."""
    _freeze(llm)
    return llm


def full(llm: LanguageModel) -> LanguageModel:
    """Train every weight of the language model.

    Raises:
        CmrvlmError: Its weights are quantized.
    """
    if llm.quantized:
        raise CmrvlmError(
            "quantized weights cannot be trained", field="adapter", remedy="Use adapter=qlora."
        )
    llm.requires_grad_(True)
    llm.borrows = False
    return llm


def lora(
    llm: LanguageModel,
    rank: int = 16,
    alpha: int = 32,
    dropout: float = 0.05,
    targets: Sequence[str] | str = ALL_LINEAR,
    dora: bool = False,
) -> LanguageModel:
    """Add low-rank adapters (LoRA; Hu et al., ICLR 2022) to linear layers and train them alone.

    Args:
        llm: Language model, its weights quantized or not.
        rank: Rank of the adapters.
        alpha: The adapters' output is scaled by alpha / rank.
        dropout: Dropout probability of the adapters' input.
        targets: Names of layers, such as `q_proj`; `all-linear` takes all but the head.
        dora: Learn magnitude and direction of the weights apart (DoRA; Liu et al., ICML 2024).

    Raises:
        CmrvlmError: A name matches no layer.
    """
    target_names = _target_names(llm, targets)
    _freeze(llm)
    config = LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=target_names, use_dora=dora
    )
    inject_adapter_in_model(config, llm.network)
    # Optimizer steps are too small for the digits of bfloat16: what is trained stays in float32.
    cast_adapter_dtype(llm.network, "default")
    for name, parameter in llm.network.named_parameters():
        parameter.requires_grad = "lora_" in name
    return llm


def _target_names(llm: LanguageModel, targets: Sequence[str] | str) -> list[str]:
    """Return the names of the layers that get an adapter, and check that each matches a layer."""
    head = llm.network.get_output_embeddings()
    layer_names = [
        name
        for name, module in llm.network.named_modules()
        if isinstance(module, nn.Linear) and module is not head
    ]
    # Layers of all blocks share their last name, such as `q_proj`.
    last_names = list(dict.fromkeys(name.rpartition(".")[2] for name in layer_names))

    if targets == ALL_LINEAR:
        target_names = last_names
    elif isinstance(targets, str):
        target_names = [targets]
    else:
        target_names = list(targets)

    for target in target_names:
        if not any(name == target or name.endswith(f".{target}") for name in layer_names):
            raise CmrvlmError(
                f"'{target}' matches no layer of the language model",
                field="adapter.targets",
                remedy=f"Its linear layers: {', '.join(last_names)}.",
            )
    return target_names


def _freeze(llm: LanguageModel) -> None:
    """Freeze the network; its weights are then still those of the source, if it has one."""
    llm.network.requires_grad_(False)
    llm.borrows = llm.has_published_weights
