"""Check that a run was made with the labels, preprocessing and base model that it is used with."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

from torch import nn

from cmrvlm.errors import CmrvlmError
from cmrvlm.language_model.network import LanguageModel
from cmrvlm.runs.run_files import naming_damage, read_mapping
from cmrvlm.study.orientation import LAYOUT
from cmrvlm.study.vocabulary import DISEASES, FINDINGS, STRUCTURES
from cmrvlm.transforms.preprocessing import Preprocessing

LABELS = "labels.json"
PREPROCESSING = "preprocessing.json"
BASE = "language_model.json"
# Settings of a language model that change its answers and the shape of no weight.
_ARCHITECTURE = (
    "model_type",
    "hidden_act",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "rms_norm_eps",
    "layer_norm_eps",
    "layer_norm_epsilon",
    "rope_parameters",
    "rope_theta",
    "sliding_window",
    "layer_types",
    "scale_emb",
    "scale_depth",
    "dim_model_base",
    "logits_scaling",
    "attention_multiplier",
    "embedding_multiplier",
    "residual_multiplier",
)
log = logging.getLogger(__name__)


def label_schema() -> dict[str, Any]:
    """Return names and order of the structures, diseases and findings that weights depend on."""
    return {"structures": STRUCTURES, "diseases": list(DISEASES), "findings": list(FINDINGS)}


def check_labels(run: Path) -> None:
    """Refuse a run whose label schema differs from the current one.

    Raises:
        CmrvlmError: The schemas differ.
    """
    path = run / LABELS
    saved = read_mapping(path)
    current = label_schema()
    with naming_damage(path):
        known = set(saved["structures"])
    # A structure that was added later changes no weight, as prompts name structures in words.
    current["structures"] = {
        name: value for name, value in current["structures"].items() if name in known
    }
    if saved != current:
        raise CmrvlmError(
            "the run was made with other labels than this version has",
            file=path,
            remedy="Use the version that trained it.",
        )


def check_base(
    model: nn.Module, run: Path, *, quantized: bool = False, field: str = "llm.network.path"
) -> None:
    """Refuse a pretrained language model other than the one that the run was trained on.

    Args:
        model: Model with its language model.
        run: Run folder.
        quantized: Compare with the fingerprint of the quantized weights.
        field: Setting that named the language model or the run, for the error.

    Raises:
        CmrvlmError: The weights, or numbers of the architecture that no weight shows, differ.
    """
    path = run / BASE
    llm = getattr(model, "llm", None)
    if not path.is_file() or not isinstance(llm, LanguageModel):
        return
    saved = read_mapping(path)
    remedy = f"Give the model that the run was trained on: {saved.get('source')}."
    if llm.fingerprint(quantized=quantized) != saved.get("fingerprint"):
        raise CmrvlmError(
            "the language model has other weights than the one that was trained on",
            file=str(llm.source),
            field=field,
            remedy=remedy,
        )
    # Runs of earlier versions keep no fingerprint of the architecture.
    architecture = architecture_fingerprint(llm)
    if saved.get("architecture", architecture) != architecture:
        raise CmrvlmError(
            "the language model has another architecture than the one that was trained on",
            file=str(llm.source),
            field=field,
            remedy=remedy,
        )


def describe_base(llm: LanguageModel) -> dict[str, str | None]:
    """Return what a run keeps of a base model whose weights it does not hold."""
    return {
        "source": llm.source,
        "fingerprint": llm.fingerprint(),
        "architecture": architecture_fingerprint(llm),
    }


def architecture_fingerprint(llm: LanguageModel) -> str:
    """Return a hash of the numbers of a language model's configuration that no weight shows."""
    settings = llm.network.config.get_text_config().to_dict()
    kept = {name: settings[name] for name in _ARCHITECTURE if name in settings}
    text = json.dumps(kept, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def check_preprocessing(run: Path, preprocessing: Preprocessing) -> None:
    """Refuse a preprocessing that differs from that of the training.

    A run without a layout was trained on images in the axis order of their files. A warning says
    so.

    Raises:
        CmrvlmError: A step differs; the message shows both versions.
    """
    path = run / PREPROCESSING
    if not path.is_file():
        raise CmrvlmError(
            "the run does not say how its images were prepared", file=path, remedy="Train it again."
        )
    saved = read_mapping(path)
    if "layout" not in saved:
        log.warning(
            "%s: this run was trained on rows, columns and slices as files stored them; "
            "it is shown all in one layout now, so that answers about files in another order "
            "may be better, or worse: train it again",
            run.name,
        )
        saved["layout"] = LAYOUT
    with naming_damage(path):
        difference = preprocessing.first_difference(saved)
    if difference is not None:
        step, trained, current = difference
        raise CmrvlmError(
            f"trained with {trained}, asked for {current}",
            file=path,
            field=f"transform.preprocessing.steps.{step}",
            remedy="A model is applied with the preprocessing that it was trained with.",
        )
