"""What of the language model is trained: nothing, everything, or low-rank additions."""

from __future__ import annotations

from collections.abc import Sequence

from peft import LoraConfig, inject_adapter_in_model
from peft.functional import cast_adapter_dtype
from torch import nn

from cmrvlm.errors import CmrvlmError
from cmrvlm.language_model.network import LanguageModel

ALL_LINEAR = "all-linear"


def frozen(llm: LanguageModel) -> LanguageModel:
    """No weight of the language model is trained but the rows of tokens that it does not know."""
    _freeze(llm)
    return llm


def full(llm: LanguageModel) -> LanguageModel:
    """Every weight of the language model is trained.

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
    """Low-rank additions to linear layers of the language model are trained (Hu et al., ICLR 2022), nothing else of it.

    Args:
        llm: Language model, its weights quantized or not.
        rank: Rank of the additions.
        alpha: They are scaled by alpha / rank.
        dropout: In front of them.
        targets: Names of layers, such as `q_proj`; `all-linear` takes all but the head.
        dora: Direction and length apart (Liu et al., ICML 2024).

    Raises:
        CmrvlmError: A name matches no layer.
    """
    head = llm.network.get_output_embeddings()
    names = [
        name
        for name, module in llm.network.named_modules()
        if isinstance(module, nn.Linear) and module is not head
    ]
    leaves = list(dict.fromkeys(name.rpartition(".")[2] for name in names))
    wanted = (
        leaves
        if targets == ALL_LINEAR
        else [targets]
        if isinstance(targets, str)
        else list(targets)
    )
    for one in wanted:
        if not any(name == one or name.endswith(f".{one}") for name in names):
            raise CmrvlmError(
                f"'{one}' matches no layer of the language model",
                field="adapter.targets",
                remedy=f"Its linear layers: {', '.join(leaves)}.",
            )
    _freeze(llm)
    config = LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=wanted, use_dora=dora
    )
    inject_adapter_in_model(config, llm.network)
    # Steps of an optimizer are too small for the digits of bfloat16: what is trained is kept in float32.
    cast_adapter_dtype(llm.network, "default")
    for name, parameter in llm.network.named_parameters():
        parameter.requires_grad = "lora_" in name
    return llm


def _freeze(llm: LanguageModel) -> None:
    llm.network.requires_grad_(False)
    llm.borrows = llm.source is not None
