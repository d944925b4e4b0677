"""What a training will take of the device's memory, said before it starts."""

from __future__ import annotations

import torch

from cmrvlm.instructions.batch import Batch
from cmrvlm.language_model.memory import Memory, estimate_memory
from cmrvlm.language_model.packing import arrange
from cmrvlm.models.vision_language_model import VisionLanguageModel

GB = 1e9


def memory_of(model: VisionLanguageModel, batch: Batch) -> Memory:
    """Memory that the language model takes for a batch like this one, in bfloat16 with AdamW."""
    network, packed = model.llm.network, arrange(batch.rows, model.llm)
    answers = int(batch.rows.answer_lengths.sum())
    own = [p for name, p in network.named_parameters() if "lora_" not in name]
    tuning = "full" if any(p.requires_grad for p in own) else "lora"
    if model.llm.quantized:
        tuning = "qlora"
    rows, tokens = packed.ids.shape
    additions = getattr(network, "peft_config", {}).get("default")
    return estimate_memory(
        network.config,
        rows,
        tokens,
        max(1, answers // rows),
        tuning,
        checkpointing=bool(getattr(network, "is_gradient_checkpointing", False)),
        rank=additions.r if additions else 1,
    )


def memory_message(model: VisionLanguageModel, batch: Batch) -> str:
    """`memory_of` in words, against what the device has."""
    found = memory_of(model, batch)
    parts = ", ".join(f"{name} {value / GB:.1f}" for name, value in vars(found).items())
    text = (
        f"the language model takes about {found.total / GB:.1f} GB in bfloat16 with AdamW ({parts})"
    )
    if not torch.cuda.is_available():
        return text
    there = torch.cuda.get_device_properties(0).total_memory
    fits = (
        ""
        if found.total < 0.9 * there
        else "; too little: adapter=qlora, checkpointing, a smaller batch"
    )
    return f"{text}, the device has {there / GB:.0f} GB{fits}"
