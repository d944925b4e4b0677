"""What training a language model takes of a device's memory, before it is tried.

Activations are counted, not guessed: the same architecture is run without values, as tensors that know only their
shape, and what autograd keeps for the backward pass is summed.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoModelForCausalLM, PretrainedConfig

from cmrvlm.errors import CmrvlmError
from cmrvlm.language_model.adapter import full, lora
from cmrvlm.language_model.network import LanguageModel

TUNING = ("full", "lora", "qlora")
# Bytes of optimizer state for each trained value.
OPTIMIZERS = {"adamw": 8.0, "adamw8bit": 2.0, "adafactor": 0.1, "sgd": 0.0}
# Weights in nf4: half a byte, and a scale of 8 bits for 64 of them, itself scaled (Dettmers et al., NeurIPS 2023).
_NF4_BYTES = 0.5 + 1 / 64
_TRAINED_BYTES = 4  # additions are kept in float32


@dataclass(frozen=True)
class Memory:
    """Bytes of a training step.

    Attributes:
        weights: Of the language model.
        gradients: Of what is trained.
        optimizer: Its state.
        activations: Kept for the backward pass.
    """

    weights: float
    gradients: float
    optimizer: float
    activations: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.weights + self.gradients + self.optimizer + self.activations


def estimate_memory(
    config: PretrainedConfig,
    batch: int,
    tokens: int,
    answer_tokens: int,
    tuning: str = "lora",
    *,
    checkpointing: bool = False,
    optimizer: str = "adamw",
    rank: int = 16,
) -> Memory:
    """Memory of one step of a language model in bfloat16.

    Encoders and heads come on top; they are small beside a model of billions.

    Args:
        config: Of the architecture.
        batch: Rows.
        tokens: Tokens of a row.
        answer_tokens: Of these, how many are answers, whose logits are computed.
        tuning: One of `TUNING`.
        checkpointing: Activations of a layer are computed again in the backward pass.
        optimizer: One of `OPTIMIZERS`.
        rank: Of low-rank additions.

    Raises:
        CmrvlmError: A name is unknown.
    """
    for field, name, known in (
        ("tuning", tuning, TUNING),
        ("optimizer", optimizer, tuple(OPTIMIZERS)),
    ):
        if name not in known:
            raise CmrvlmError(
                f"unknown: '{name}'", field=field, remedy=f"Known: {', '.join(known)}."
            )
    llm = _built(config, tuning, rank)
    head = llm.network.get_output_embeddings()
    count = sum(p.numel() for name, p in llm.network.named_parameters() if "lora_" not in name)
    # In four bits are the linear layers of the blocks; embedding, head and norms stay as they are.
    linear = sum(
        one.weight.numel()
        for name, one in llm.network.named_modules()
        if isinstance(one, nn.Linear) and one is not head and "lora_" not in name
    )
    trained = sum(p.numel() for p in llm.network.parameters() if p.requires_grad)
    weights = 2.0 * count - (2.0 - _NF4_BYTES) * linear * (tuning == "qlora")
    each = 2 if tuning == "full" else _TRAINED_BYTES
    weights += _TRAINED_BYTES * trained * (tuning != "full")
    shallow = [_shallow(config, layers, tuning, rank) for layers in (1, 2)]
    # On the CPU, whose attention keeps what that of a GPU does; on `meta` it keeps who reads whom, for each pair.
    with FakeTensorMode():
        one, two = (
            activation_bytes(_with_shapes_alone(llm), batch, tokens, answer_tokens)
            for llm in shallow
        )
    layer, rest = two - one, 2 * one - two
    layers = int(config.num_hidden_layers)
    # With checkpointing a layer keeps what comes into it, and one at a time all of its own.
    kept = (
        layers * 2.0 * batch * tokens * config.hidden_size + layer
        if checkpointing
        else layers * layer
    )
    return Memory(weights, float(each * trained), OPTIMIZERS[optimizer] * trained, rest + kept)


def _shallow(config: PretrainedConfig, layers: int, tuning: str, rank: int) -> LanguageModel:
    """The architecture with fewer layers: all of them keep alike."""
    smaller = copy.deepcopy(config)
    smaller.num_hidden_layers = layers
    if getattr(smaller, "layer_types", None):
        smaller.layer_types = smaller.layer_types[:layers]
    return _built(smaller, tuning, rank)


def _with_shapes_alone(llm: LanguageModel) -> LanguageModel:
    """The model with parameters and buffers of the mode that is on."""
    for module in llm.modules():
        for name, value in list(module._parameters.items()):
            if value is not None:
                module._parameters[name] = nn.Parameter(
                    torch.empty(value.shape, dtype=value.dtype), value.requires_grad
                )
        for name, buffer in list(module._buffers.items()):
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)
    return llm


def _built(config: PretrainedConfig, tuning: str, rank: int) -> LanguageModel:
    with torch.device("meta"):
        network = AutoModelForCausalLM.from_config(
            config, dtype=torch.bfloat16, attn_implementation="sdpa"
        )
        llm = LanguageModel(network, "causal")
        return full(llm) if tuning == "full" else lora(llm, rank=rank, dropout=0.0)


def activation_bytes(llm: LanguageModel, batch: int, tokens: int, answer_tokens: int) -> float:
    """Bytes that autograd keeps of one forward pass of a model, parameters left out, each storage once.

    Args:
        llm: With values or without.
        batch: Rows.
        tokens: Tokens of a row.
        answer_tokens: Of these, how many have logits.
    """
    weight = next(llm.network.parameters())
    own = {p.untyped_storage()._cdata for p in llm.parameters()}
    kept: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage.nbytes()
        return tensor

    embeddings = torch.zeros(
        batch, tokens, llm.width, device=weight.device, dtype=weight.dtype, requires_grad=True
    )
    mask = torch.ones(batch, 1, tokens, tokens, dtype=torch.bool, device=weight.device)
    places = torch.zeros(batch, tokens, dtype=torch.long, device=weight.device)
    labels = torch.zeros(batch * answer_tokens, dtype=torch.long, device=weight.device)
    llm.train()
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        hidden = llm.forward_cached(embeddings, mask, places)
        logits = llm.logits(hidden[:, -answer_tokens:]).flatten(0, 1).float()
        loss = torch.nn.functional.cross_entropy(logits, labels)
    del loss
    return float(sum(kept.values()))
