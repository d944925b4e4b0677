"""Estimate of the device memory that training a language model takes, before it is tried.

Activations are counted, not guessed: the same architecture is run as fake tensors, which have a
shape and no values, and the bytes that autograd keeps for the backward pass are summed.
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
# Bytes of a value in bfloat16, and in float32, in which adapters are kept.
_BFLOAT16_BYTES = 2.0
_FLOAT32_BYTES = 4
# A weight in nf4: half a byte, and a scale of 8 bits for 64 weights, itself scaled (Dettmers et
# al., NeurIPS 2023).
_NF4_BYTES = 0.5 + 1 / 64


@dataclass(frozen=True)
class Memory:
    """Bytes of device memory that a training step takes.

    Attributes:
        weights: Bytes of the language model's weights.
        gradients: Bytes of the gradients of what is trained.
        optimizer: Bytes of the optimizer's state.
        activations: Bytes that are kept for the backward pass.
    """

    weights: float
    gradients: float
    optimizer: float
    activations: float

    @property
    def total(self) -> float:
        """Sum of all bytes."""
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
    """Estimate the memory of one training step of a language model in bfloat16.

    Encoders and heads come on top; they are small beside a model of billions.

    Args:
        config: Configuration of the architecture.
        batch: Number of rows.
        tokens: Number of tokens of a row.
        answer_tokens: Number of answer tokens among them, whose logits are computed.
        tuning: One of `TUNING`.
        checkpointing: Compute the activations of a layer again in the backward pass.
        optimizer: One of `OPTIMIZERS`.
        rank: Rank of low-rank adapters.

    Returns:
        Bytes of the step by what they are for.

    Raises:
        CmrvlmError: A name is unknown.
    """
    _check_name("tuning", tuning, TUNING)
    _check_name("optimizer", optimizer, tuple(OPTIMIZERS))
    llm = _build(config, tuning, rank)
    trained = sum(p.numel() for p in llm.network.parameters() if p.requires_grad)
    trained_bytes = 2 if tuning == "full" else _FLOAT32_BYTES

    # All layers keep alike: the second is what two layers keep more than one.
    one_layer = _activations_of_depth(1, config, batch, tokens, answer_tokens, tuning, rank)
    two_layers = _activations_of_depth(2, config, batch, tokens, answer_tokens, tuning, rank)
    per_layer = two_layers - one_layer
    outside_layers = 2 * one_layer - two_layers

    layers = int(config.num_hidden_layers)
    in_layers = layers * per_layer
    if checkpointing:
        # Every layer keeps its input, and one layer at a time all of its activations.
        inputs = layers * _BFLOAT16_BYTES * batch * tokens * config.hidden_size
        in_layers = inputs + per_layer
    return Memory(
        weights=_weight_bytes(llm, tuning),
        gradients=float(trained_bytes * trained),
        optimizer=OPTIMIZERS[optimizer] * trained,
        activations=outside_layers + in_layers,
    )


def activation_bytes(llm: LanguageModel, batch: int, tokens: int, answer_tokens: int) -> float:
    """Count the bytes that autograd keeps of one forward pass, parameters left out.

    Args:
        llm: Language model, with values or as fake tensors.
        batch: Number of rows.
        tokens: Number of tokens of a row.
        answer_tokens: Number of tokens among them whose logits are computed.
    """
    weight = next(llm.network.parameters())
    device = weight.device
    parameter_storages = {p.untyped_storage()._cdata for p in llm.parameters()}
    kept: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in parameter_storages:
            kept[storage._cdata] = storage.nbytes()
        return tensor

    embeddings = torch.zeros(
        batch, tokens, llm.width, device=device, dtype=weight.dtype, requires_grad=True
    )
    mask = torch.ones(batch, 1, tokens, tokens, dtype=torch.bool, device=device)
    positions = torch.zeros(batch, tokens, dtype=torch.long, device=device)
    labels = torch.zeros(batch * answer_tokens, dtype=torch.long, device=device)
    llm.train()
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        hidden = llm.forward_cached(embeddings, mask, positions)
        logits = llm.logits(hidden[:, -answer_tokens:]).flatten(0, 1).float()
        loss = torch.nn.functional.cross_entropy(logits, labels)
    del loss
    return float(sum(kept.values()))


def _check_name(field: str, name: str, known: tuple[str, ...]) -> None:
    """Check that a setting has one of the known values."""
    if name not in known:
        raise CmrvlmError(f"unknown: '{name}'", field=field, remedy=f"Known: {', '.join(known)}.")


def _weight_bytes(llm: LanguageModel, tuning: str) -> float:
    """Return the bytes of the weights, adapters included."""
    network = llm.network
    head = network.get_output_embeddings()
    base = sum(p.numel() for name, p in network.named_parameters() if "lora_" not in name)
    if tuning == "full":
        return _BFLOAT16_BYTES * base

    weights = _BFLOAT16_BYTES * base
    if tuning == "qlora":
        # Linear layers of the blocks are in four bits; embedding, head and norms are not.
        linear = sum(
            module.weight.numel()
            for name, module in network.named_modules()
            if isinstance(module, nn.Linear) and module is not head and "lora_" not in name
        )
        weights -= (_BFLOAT16_BYTES - _NF4_BYTES) * linear
    adapters = sum(p.numel() for p in network.parameters() if p.requires_grad)
    return weights + _FLOAT32_BYTES * adapters


def _activations_of_depth(
    layers: int,
    config: PretrainedConfig,
    batch: int,
    tokens: int,
    answer_tokens: int,
    tuning: str,
    rank: int,
) -> float:
    """Return the activation bytes of the architecture with another number of layers."""
    shallow = copy.deepcopy(config)
    shallow.num_hidden_layers = layers
    if getattr(shallow, "layer_types", None):
        shallow.layer_types = shallow.layer_types[:layers]
    llm = _build(shallow, tuning, rank)
    # As fake tensors of the CPU, whose attention keeps what that of a GPU does; on `meta` it would
    # keep the attention mask of every pair.
    with FakeTensorMode():
        return activation_bytes(_as_fake_tensors(llm), batch, tokens, answer_tokens)


def _as_fake_tensors(llm: LanguageModel) -> LanguageModel:
    """Replace parameters and buffers by fake tensors of the active mode, in place."""
    for module in llm.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None:
                fake = torch.empty(parameter.shape, dtype=parameter.dtype)
                module._parameters[name] = nn.Parameter(fake, parameter.requires_grad)
        for name, buffer in list(module._buffers.items()):
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)
    return llm


def _build(config: PretrainedConfig, tuning: str, rank: int) -> LanguageModel:
    """Build the architecture in bfloat16 without allocating its weights."""
    with torch.device("meta"):
        network = AutoModelForCausalLM.from_config(
            config, dtype=torch.bfloat16, attn_implementation="sdpa"
        )
        llm = LanguageModel(network, "causal")
        if tuning == "full":
            return full(llm)
        return lora(llm, rank=rank, dropout=0.0)
