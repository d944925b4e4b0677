"""Build data, tokenizer, model and stage from a resolved configuration.

Only this module knows both the keys of the configuration and the classes that they describe.
"""

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

# Interpolations in the settings of sources use these keys; the data module does not take them.
_DATA_ONLY = ("root", "path")


def build_data(config: Config, **changes: Any) -> DataModule:
    """Build the data module with preprocessing, augmentation and task mixture.

    Args:
        config: Plain configuration.
        **changes: Settings of the data module that replace those of the configuration.
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
    """Load the tokenizer of an earlier run, or build the configured one.

    Args:
        config: Plain configuration. It chooses between a tokenizer trained on the texts of the
            data and that of a pretrained model.
        data: Data module, whose training texts a new tokenizer is trained on.
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
    heads: dict[str, Any] = {}
    for name, settings in config["head"].items():
        heads[name] = None
        if settings:
            heads[name] = build(settings, f"head.{name}")
    value_names = {
        name: [_ids_of_name(tokenizer, words) for words in record.value_names]
        for name, record in READ_OUTS.items()
    }
    parts = Parts(
        encoders=encoders,
        llm=llm,
        projector=build(config["projector"], "projector"),
        heads=heads,
        names=value_names,
        ids=ids,
        precision=check_precision(config["trainer"].get("precision")),
    )
    model = build(config["model"], "model", parts=parts)
    assert isinstance(model, nn.Module)
    return model


def _ids_of_name(tokenizer: PreTrainedTokenizerBase, name: Mapping[str, str]) -> list[int]:
    """Return the token ids of a name in English, with and without a space before, and in Chinese."""
    words = [name["en"], f" {name['en']}", name["zh"]]
    return [token for word in words for token in tokenizer.encode(word, add_special_tokens=False)]


def check_masks(model: nn.Module, tasks: Mapping[str, Task]) -> None:
    """Refuse tasks that need masks of a sequence that has an encoder but no mask decoder.

    Args:
        model: Model to check. One of stage 1 has no masks and is accepted.
        tasks: Name to task.

    Raises:
        CmrvlmError: There is such a task.
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
    """Build a collator with the model's numbers of image tokens for each series and view."""
    assert isinstance(model, VisionLanguageModel | DualEncoder)
    counts = {name: model.token_counts(name) for name in model.encoders}
    return Collator(
        tokenizer,
        series_tokens={name: series for name, (series, _) in counts.items()},
        view_tokens={name: view for name, (_, view) in counts.items()},
        max_length=model.llm.max_length,
        read_out_tokens=getattr(model, "read_out_tokens", 0),
    )


def build_stage(config: Config, model: nn.Module, **data_settings: Any) -> Any:
    """Build the stage around a model, with its optimizer and schedule.

    Args:
        config: Plain configuration.
        model: Model that the stage trains.
        **data_settings: Settings computed from the data: task weights and class shares.
    """
    return build(
        {key: value for key, value in config["stage"].items() if key != "init_from"},
        "stage",
        model=model,
        optimizer=build(config["optimizer"], "optimizer"),
        schedule=build(config["schedule"], "schedule"),
        **data_settings,
    )
