"""From a resolved configuration to objects: data, tokenizer, model, stage. The only place that knows both sides."""

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
from cmrvlm.instructions.targets import TARGET_NAMES
from cmrvlm.instructions.tokens import DETECT, IMAGE, SEGMENT
from cmrvlm.language_model.network import LanguageModel
from cmrvlm.language_model.tokenizer import load_tokenizer
from cmrvlm.models.assemble import Parts
from cmrvlm.models.dual_encoder import DualEncoder
from cmrvlm.models.features import MarkIds
from cmrvlm.models.precision import check_precision
from cmrvlm.models.vision_language_model import CMRVLM
from cmrvlm.tasks.segmentation import DetectTask, SegmentTask

_DATA_ONLY = (
    "root",
    "path",
)  # read by sources through interpolation, no arguments of the data module


def build_data(config: Config, **changes: Any) -> Any:
    """The data module with preprocessing, augmentation and mix built into it."""
    data = {key: value for key, value in config["data"].items() if key not in _DATA_ONLY} | changes
    augmentation = config["transform"].get("augmentation")
    return build(
        data,
        "data",
        sequences=[name for name, encoder in config["encoders"].items() if encoder],
        preprocessing=build(config["transform"]["preprocessing"], "transform.preprocessing"),
        augmentation=build(augmentation, "transform.augmentation") if augmentation else None,
        mixture=build(config["mix"], "mix"),
    )


def build_tokenizer(config: Config, data: Any, earlier: Path | None) -> PreTrainedTokenizerBase:
    """The earlier run's tokenizer, or a new one: trained on the training texts of the data, or a pretrained model's."""
    if earlier is not None:
        return load_tokenizer(earlier / "tokenizer")
    tokenizer: PreTrainedTokenizerBase = build(
        config["llm"]["tokenizer"], "llm.tokenizer", corpus=data.corpus()
    )
    return tokenizer


def build_model(config: Config, tokenizer: PreTrainedTokenizerBase) -> nn.Module:
    """The model of the configuration, with random weights."""
    encoders: dict[str, Encoder] = {
        name: build(one, f"encoders.{name}") for name, one in config["encoders"].items() if one
    }
    llm: LanguageModel = build(config["llm"]["network"], "llm.network", vocab_size=len(tokenizer))
    build(config["adapter"], "adapter", llm=llm)
    ids = MarkIds(*tokenizer.convert_tokens_to_ids([IMAGE, SEGMENT, DETECT]))
    heads = {
        name: build(one, f"head.{name}") if one else None for name, one in config["head"].items()
    }
    names = {
        output: [_ids_of_name(tokenizer, one) for one in own]
        for output, own in TARGET_NAMES.items()
    }
    precision = check_precision(config["trainer"].get("precision"))
    parts = Parts(
        encoders, llm, build(config["projector"], "projector"), heads, names, ids, precision
    )
    model = build(config["model"], "model", parts=parts)
    assert isinstance(model, nn.Module)
    return model


def _ids_of_name(tokenizer: PreTrainedTokenizerBase, name: Mapping[str, str]) -> list[int]:
    """Token ids of a name in all languages, each as it stands inside a sentence."""
    words = [name["en"], f" {name['en']}", name["zh"]]
    return [token for one in words for token in tokenizer.encode(one, add_special_tokens=False)]


def check_masks(model: nn.Module, tasks: Mapping[str, Any]) -> None:
    """Refuse tasks that ask for masks on a sequence that the model reads and has no mask decoder for.

    Raises:
        CmrvlmError: There is one.
    """
    if not isinstance(model, CMRVLM):
        return
    without = {*model.encoders} - {*model.mask_head}
    asking = {
        name: task.sequence
        for name, task in tasks.items()
        if isinstance(task, SegmentTask | DetectTask) and task.sequence in without
    }
    if asking:
        missing = ", ".join(sorted(set(asking.values())))
        raise CmrvlmError(
            f"there is no mask decoder for {missing}, which {', '.join(asking)} ask for",
            field="model.mask_sequences",
            remedy=f"Add {missing} to it and keep head.mask, or leave the tasks out.",
        )


def build_collator(model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> Collator:
    """A collator that knows how many tokens a series and a view become in the model's text."""
    assert isinstance(model, CMRVLM | DualEncoder)
    counts = {name: model.token_counts(name) for name in model.encoders}
    return Collator(
        tokenizer,
        series_tokens={name: series for name, (series, _) in counts.items()},
        view_tokens={name: view for name, (_, view) in counts.items()},
        max_length=model.llm.max_length,
        read_out_tokens=model.read_out_tokens if isinstance(model, CMRVLM) else 0,
    )


def build_stage(config: Config, model: nn.Module, **of_the_data: Any) -> Any:
    """The stage around a model, with its optimizer and schedule.

    Args:
        config: Plain configuration.
        model: What it trains.
        **of_the_data: What the stage takes from the data: weights of the tasks, shares of the classes.
    """
    return build(
        {key: value for key, value in config["stage"].items() if key != "init_from"},
        "stage",
        model=model,
        optimizer=build(config["optimizer"], "optimizer"),
        schedule=build(config["schedule"], "schedule"),
        **of_the_data,
    )
