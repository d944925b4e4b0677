"""Build data, tokenizer, model and stage from a resolved configuration. Only this module knows both sides."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedTokenizerBase

from cmrvlm.config.build import build
from cmrvlm.config.command import Config
from cmrvlm.encoders.base import Encoder
from cmrvlm.errors import CmrvlmError
from cmrvlm.instructions.collate import Collator
from cmrvlm.instructions.read_outs import READ_OUTS
from cmrvlm.instructions.tokens import DETECT, IMAGE, SEGMENT
from cmrvlm.language_model.network import LanguageModel
from cmrvlm.language_model.tokenizer import load_tokenizer
from cmrvlm.models.assemble import Parts
from cmrvlm.models.dual_encoder import DualEncoder
from cmrvlm.models.features import MarkIds
from cmrvlm.models.precision import check_precision
from cmrvlm.models.vision_language_model import VisionLanguageModel
from cmrvlm.runs.data import DataModule
from cmrvlm.tasks.base import Task

# Read by sources through interpolation; no arguments of the data module.
_DATA_ONLY = ("root", "path")


def build_data(config: Config, **changes: Any) -> DataModule:
    """Build the data module with preprocessing, augmentation and mix.

    Args:
        config: Plain configuration.
        **changes: Settings of the data module in place of the configuration's.
    """
    settings = {key: value for key, value in config["data"].items() if key not in _DATA_ONLY}
    augmentation = config["transform"].get("augmentation")
    if augmentation:
        augmentation = build(augmentation, "transform.augmentation")
    data: DataModule = build(
        settings | changes,
        "data",
        sequences=[name for name, encoder in config["encoders"].items() if encoder],
        preprocessing=build(config["transform"]["preprocessing"], "transform.preprocessing"),
        augmentation=augmentation or None,
        mixture=build(config["mix"], "mix"),
    )
    return data


def build_tokenizer(
    config: Config, data: DataModule, earlier: Path | None
) -> PreTrainedTokenizerBase:
    """Load the earlier run's tokenizer, or make a new one.

    Args:
        config: Plain configuration; it says whether a new tokenizer is trained or a pretrained model's.
        data: Its training texts are what a tokenizer is trained on.
        earlier: Run folder that the training begins from, or None.
    """
    if earlier is not None:
        return load_tokenizer(earlier / "tokenizer")
    tokenizer: PreTrainedTokenizerBase = build(
        config["llm"]["tokenizer"], "llm.tokenizer", corpus=data.corpus()
    )
    return tokenizer


def build_model(config: Config, tokenizer: PreTrainedTokenizerBase) -> nn.Module:
    """Build the model of the configuration, with random weights."""
    encoders: dict[str, Encoder] = {
        name: build(settings, f"encoders.{name}")
        for name, settings in config["encoders"].items()
        if settings
    }
    llm: LanguageModel = build(config["llm"]["network"], "llm.network", vocab_size=len(tokenizer))
    build(config["adapter"], "adapter", llm=llm)
    ids = MarkIds(*tokenizer.convert_tokens_to_ids([IMAGE, SEGMENT, DETECT]))
    heads = {
        name: build(settings, f"head.{name}") if settings else None
        for name, settings in config["head"].items()
    }
    parts = Parts(
        encoders=encoders,
        llm=llm,
        projector=build(config["projector"], "projector"),
        heads=heads,
        names={
            name: [_ids_of_name(tokenizer, words) for words in record.value_names]
            for name, record in READ_OUTS.items()
        },
        ids=ids,
        precision=check_precision(config["trainer"].get("precision")),
    )
    model = build(config["model"], "model", parts=parts)
    assert isinstance(model, nn.Module)
    return model


def _ids_of_name(tokenizer: PreTrainedTokenizerBase, name: Mapping[str, str]) -> list[int]:
    """Return the token ids of a name in all languages, each as it stands inside a sentence."""
    words = [name["en"], f" {name['en']}", name["zh"]]
    return [token for word in words for token in tokenizer.encode(word, add_special_tokens=False)]


def check_masks(model: nn.Module, tasks: Mapping[str, Task]) -> None:
    """Refuse tasks that ask for masks on a sequence that the model reads and has no mask decoder for.

    Raises:
        CmrvlmError: There is one.
    """
    if not isinstance(model, VisionLanguageModel):
        return
    without_decoder = set(model.encoders) - set(model.mask_head)
    sequence_of = {
        name: task.mask_sequence
        for name, task in tasks.items()
        if task.mask_sequence in without_decoder
    }
    if sequence_of:
        missing = ", ".join(sorted(str(sequence) for sequence in set(sequence_of.values())))
        raise CmrvlmError(
            f"there is no mask decoder for {missing}, which {', '.join(sequence_of)} ask for",
            field="model.mask_sequences",
            remedy=f"Add {missing} to it and keep head.mask, or leave the tasks out.",
        )


def build_collator(model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> Collator:
    """Build a collator that knows how many tokens a series and a view become in the model's text."""
    assert isinstance(model, VisionLanguageModel | DualEncoder)
    counts = {name: model.token_counts(name) for name in model.encoders}
    return Collator(
        tokenizer,
        series_tokens={name: series for name, (series, _) in counts.items()},
        view_tokens={name: view for name, (_, view) in counts.items()},
        max_length=model.llm.max_length,
        read_out_tokens=getattr(model, "read_out_tokens", 0),
    )


def build_stage(config: Config, model: nn.Module, **of_the_data: Any) -> Any:
    """Build the stage around a model, with its optimizer and schedule.

    Args:
        config: Plain configuration.
        model: Model that it trains.
        **of_the_data: Settings that follow from the data: weights of the tasks, shares of the classes.
    """
    return build(
        {key: value for key, value in config["stage"].items() if key != "init_from"},
        "stage",
        model=model,
        optimizer=build(config["optimizer"], "optimizer"),
        schedule=build(config["schedule"], "schedule"),
        **of_the_data,
    )
