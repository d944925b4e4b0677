"""Build what is measured from the project's own configuration, with nothing from a network."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedConfig, PreTrainedTokenizerFast, Qwen3Config

from cmrvlm.config.command import resolved
from cmrvlm.instructions.batch import Batch
from cmrvlm.instructions.collate import Collator
from cmrvlm.models.vision_language_model import VisionLanguageModel
from cmrvlm.runs.wiring import (
    build_collator,
    build_data,
    build_model,
    build_stage,
    build_tokenizer,
)
from cmrvlm.stages.base import Stage
from data_modules.study_data_module import StudyDataModule
from experiments.gpu.bench import Bench

CONF = Path(__file__).parents[2] / "conf"
_TEXTS = (
    "The left ventricle is dilated. Late enhancement of the septum. ejection fraction 35 %",
    "左心室扩大。 右心室大小正常。",
)
# Published figures of https://huggingface.co/Qwen/Qwen3-4B and Qwen3-0.6B.
_QWEN3: dict[str, dict[str, Any]] = {
    "qwen3_4b": {
        "hidden_size": 2560,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "intermediate_size": 9728,
    },
    "qwen3_0_6b": {
        "hidden_size": 1024,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "intermediate_size": 3072,
    },
    # For a CPU: as many parts as the others have, all of them small.
    "qwen3_small": {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 96,
        "head_dim": 16,
        "vocab_size": 1200,
    },
}
# Studies as scanners make them, on the grid that the encoders are measured on.
_CLINICAL = (
    "data.source.count=8",
    "data.shares={val: 0.125, test: 0.125}",
    "data.batch_size=4",
    "+data.source.size=192",
    "+data.source.slices=9",
    "+data.source.frames=15",
    "+data.source.spacing_mm=[1.4,1.4]",
    "transform.preprocessing.steps.frames.frames=15",
    "transform.preprocessing.steps.grid.size=[null,192,192]",
    "transform.preprocessing.steps.grid.spacing_mm=[null,1.4,1.4]",
)
# Two studies, each with one instruction, on a small grid: for a CPU.
SMALLEST = [
    "+debug=fast",
    "data.batch_size=2",
    "mix.per_study=1",
    "projector.hidden=16",
    "head.read_out.hidden=16",
    "transform.preprocessing.steps.grid.size=[null,32,32]",
]


@dataclass(frozen=True)
class Setup:
    """A stage with its model, data and collator.

    Attributes:
        stage: Stage around the model, on the CPU or where it was built.
        model: The network.
        data: Data module, prepared.
        collator: Collator for the model.
    """

    stage: Stage
    model: VisionLanguageModel
    data: StudyDataModule
    collator: Collator

    def batch(self) -> Batch:
        """Return the first training batch."""
        first: Batch = next(iter(self.data.train_dataloader()))
        return first


def configured(bench: Bench, overrides: Sequence[str], stage: str = "stage3") -> dict[str, Any]:
    """Return a plain configuration of a stage on phantoms.

    Args:
        bench: Its scratch folder holds the cache and the run.
        overrides: Further overrides.
        stage: Experiment of `conf/experiment`.
    """
    run = bench.scratch / "run"
    places = [f"paths.cache={bench.scratch / 'cache'}", f"out={run}", f"run_dir={run}"]
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        chosen = [f"+experiment={stage}", *places, *augmentation(), *overrides]
        return resolved(compose("train", overrides=chosen))


def augmentation() -> list[str]:
    """Return overrides that leave the augmentation out where its library is not installed."""
    if importlib.util.find_spec("torchio") is None:
        return ["transform.augmentation=null"]
    return []


def studies(bench: Bench) -> list[str]:
    """Return overrides for phantoms of clinical size, or for a handful of small ones."""
    if bench.small:
        return SMALLEST
    return list(_CLINICAL)


def language_model(bench: Bench, name: str) -> list[str]:
    """Return overrides for a language model with random weights in bfloat16.

    Args:
        bench: Its scratch folder gets the architecture and a tokenizer.
        name: Architecture, of `qwen3_4b`, `qwen3_0_6b` and `qwen3_small`.
    """
    folder = bench.scratch / name
    if not folder.is_dir():
        architecture(name).save_pretrained(folder)
        _byte_tokenizer().save_pretrained(folder)
    return [
        "llm=local",
        f"llm.network.path={folder}",
        "+llm.network.weights=false",
        "llm.network.dtype=bfloat16",
        "llm.network.max_length=4096",
    ]


def architecture(name: str) -> PreTrainedConfig:
    """Return the configuration of an architecture, see `language_model`."""
    shared = {
        "vocab_size": 151936,
        "head_dim": 128,
        "max_position_embeddings": 40960,
        "rope_theta": 1_000_000.0,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": True,
    }
    config = Qwen3Config(**(shared | _QWEN3[name]))
    config.architectures = ["Qwen3ForCausalLM"]
    return config


def _byte_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer without the special tokens of this project, as publishers give one."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_TEXTS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>")


def set_up(config: dict[str, Any], device: torch.device | None = None) -> Setup:
    """Build data, model and stage of a configuration.

    Args:
        config: Plain configuration.
        device: Device on which the weights are drawn; billions of them take long on a CPU. None
            draws them on the CPU, the same for every device that they are moved to.
    """
    data = build_data(config)
    data.prepare_data()
    tokenizer = build_tokenizer(config, data, None)
    torch.manual_seed(0)
    if device is None:
        model = build_model(config, tokenizer)
    else:
        with device:
            model = build_model(config, tokenizer)
        model = model.to(device)
    collator = build_collator(model, tokenizer)
    data.use_collator(collator)
    assert isinstance(data, StudyDataModule)
    assert isinstance(model, VisionLanguageModel)
    return Setup(build_stage(config, model), model, data, collator)
