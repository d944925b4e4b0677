"""Estimated memory of training, against what it really takes."""

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from transformers import LlamaConfig, LlamaForCausalLM, MiniCPM3Config

from cmrvlm.errors import CmrvlmError
from cmrvlm.language_model.adapter import full
from cmrvlm.language_model.memory import activation_bytes, estimate_memory
from cmrvlm.language_model.network import LanguageModel

SMALL = LlamaConfig(
    vocab_size=512,
    hidden_size=128,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    intermediate_size=256,
)


def real(config=SMALL):
    torch.manual_seed(0)
    return full(LanguageModel(LlamaForCausalLM(config).to(torch.bfloat16), "causal"))


def test_activation_bytes_equal_what_the_profiler_counts():
    """The profiler's count of what a forward pass allocates and does not free."""
    llm = real()
    embeddings = torch.zeros(2, 96, 128, dtype=torch.bfloat16, requires_grad=True)
    mask, positions = (
        torch.ones(2, 1, 96, 96, dtype=torch.bool),
        torch.zeros(2, 96, dtype=torch.long),
    )
    llm.forward_cached(embeddings, mask, positions)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        hidden = llm.forward_cached(embeddings, mask, positions)
        logits = llm.logits(hidden[:, -16:]).flatten(0, 1).float()
        loss = torch.nn.functional.cross_entropy(logits, torch.zeros(32, dtype=torch.long))
    allocated = sum(event.self_cpu_memory_usage for event in found.key_averages())
    assert activation_bytes(llm, 2, 96, 16) == pytest.approx(allocated, rel=0.15)
    del loss


def test_fake_tensors_keep_as_many_bytes_as_real_ones():
    whole = activation_bytes(real(), 2, 96, 16)
    found = estimate_memory(SMALL, 2, 96, 16, "full")
    assert found.activations == pytest.approx(whole, rel=0.02)
    count = sum(p.numel() for p in real().network.parameters())
    assert (found.weights, found.gradients, found.optimizer) == (2 * count, 2 * count, 8 * count)


def test_adapters_quantization_and_checkpointing_save_memory():
    config = MiniCPM3Config(num_hidden_layers=4)
    table = {
        (how, ckpt): estimate_memory(config, 1, 256, 64, how, checkpointing=ckpt)
        for how in ("full", "lora", "qlora")
        for ckpt in (False, True)
    }
    assert table["full", False].weights == pytest.approx(table["lora", False].weights, rel=0.2)
    assert table["qlora", False].weights < 0.6 * table["lora", False].weights
    assert table["lora", False].gradients < 0.1 * table["full", False].gradients
    for how in ("full", "lora", "qlora"):
        assert table[how, True].activations < 0.6 * table[how, False].activations
        assert table[how, True].weights == table[how, False].weights
    twice = estimate_memory(config, 2, 256, 64, "lora")
    assert twice.activations == pytest.approx(2 * table["lora", False].activations, rel=0.02)
    assert (
        estimate_memory(config, 1, 256, 64, "full", optimizer="adamw8bit").optimizer
        < table["full", False].optimizer / 3
    )
    with pytest.raises(CmrvlmError, match="adam9"):
        estimate_memory(config, 1, 256, 64, optimizer="adam9")
