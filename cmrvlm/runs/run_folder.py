"""Write and read run folders, which hold all that evaluation and prediction need.

No file in them is a pickle, so that a run of another person can be loaded safely.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from cmrvlm.config.build import build, check_plain
from cmrvlm.config.command import Config
from cmrvlm.errors import CmrvlmError, naming_file
from cmrvlm.instructions.collate import Collator
from cmrvlm.language_model.finite import check_weights
from cmrvlm.language_model.network import LanguageModel, borrowed_keys
from cmrvlm.language_model.tokenizer import load_tokenizer
from cmrvlm.models.familiarity import Familiarity
from cmrvlm.models.vision_language_model import VisionLanguageModel
from cmrvlm.runs.run_claim import WEIGHTS
from cmrvlm.runs.wiring import build_collator, build_model
from cmrvlm.study.atomic_files import atomic_write, write_json
from cmrvlm.study.orientation import LAYOUT
from cmrvlm.study.vocabulary import DISEASES, FINDINGS, STRUCTURES
from cmrvlm.tasks.mixture import Mixture
from cmrvlm.transforms.preprocessing import Preprocessing

log = logging.getLogger(__name__)

CONFIG = "config.yaml"
TOKENIZER = "tokenizer"
LABELS = "labels.json"
PREPROCESSING = "preprocessing.json"
BASE = "language_model.json"
ARCHITECTURE = "language_model"
FAMILIARITY = "familiarity.safetensors"


def own_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return the weights of a model that a run folder stores.

    Args:
        model: Any module.

    Returns:
        State dict, key to weight of any shape such as (D_out, D_in) or (D,), without the weights
        of a pretrained base. Tied weights are there once, under their first key.
    """
    seen: set[int] = set()
    weights = {}
    borrowed = borrowed_keys(model)
    for key, value in model.state_dict().items():
        if key in borrowed:
            continue
        # All tensors without elements share the address 0 and are not tied.
        if value.data_ptr() in seen and value.numel():
            continue
        seen.add(value.data_ptr())
        weights[key] = value
    return weights


def label_schema() -> dict[str, Any]:
    """Return names and order of the structures, diseases and findings that weights depend on."""
    return {"structures": STRUCTURES, "diseases": list(DISEASES), "findings": list(FINDINGS)}


def save_run(
    run: Path,
    config: Config,
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    preprocessing: Preprocessing,
    *,
    trained: bool = True,
) -> None:
    """Write configuration, weights, tokenizer, label schema and preprocessing into a run folder.

    Args:
        run: Run folder.
        config: Resolved configuration.
        model: Model of the run.
        tokenizer: Its tokenizer.
        preprocessing: Its preprocessing.
        trained: Write the weights. Those of a model before its training are not written, as they
            could be mistaken for a result.
    """
    run.mkdir(parents=True, exist_ok=True)
    (run / CONFIG).write_text(yaml.safe_dump(config, allow_unicode=True, sort_keys=False))
    if trained:
        weights = {
            key: value.detach().cpu().contiguous() for key, value in own_weights(model).items()
        }
        with atomic_write(run / WEIGHTS) as temporary:
            save_file(weights, temporary)
    tokenizer.save_pretrained(run / TOKENIZER)
    llm = getattr(model, "llm", None)
    if isinstance(llm, LanguageModel) and llm.borrows:
        write_json(run / BASE, {"source": llm.source, "fingerprint": llm.fingerprint()})
    elif isinstance(llm, LanguageModel) and llm.source is not None:
        llm.network.config.save_pretrained(run / ARCHITECTURE)
    write_json(run / LABELS, label_schema())
    write_json(run / PREPROCESSING, preprocessing.spec())


def read_config(run: Path) -> Config:
    """Read the resolved configuration of a run.

    Raises:
        CmrvlmError: The folder is no run folder, or its configuration holds interpolations. They
            could resolve to anything, and runs come from other people.
    """
    path = run / CONFIG
    if not path.is_file():
        raise CmrvlmError(
            "there is no run here",
            file=path,
            field="run",
            remedy="Give the folder that training printed.",
        )
    config = dict(yaml.safe_load(path.read_text()))
    with naming_file(path):
        check_plain(config)
    return config


@dataclass
class TrainedRun:
    """A trained model with its tokenizer, preprocessing and tasks.

    Attributes:
        folder: Run folder.
        config: Resolved configuration.
        model: Network in evaluation mode.
        collator: Collator with the tokenizer and the token counts of series.
        preprocessing: Preprocessing of the training.
        mixture: Tasks of the training.
        familiarity: Tells images unlike those of the training; None for a run that did not keep it.
    """

    folder: Path
    config: Config
    model: VisionLanguageModel
    collator: Collator
    preprocessing: Preprocessing
    mixture: Mixture
    familiarity: Familiarity | None = None


def load_run(run: Path, *, quantized: bool = True) -> TrainedRun:
    """Load a trained model with its tokenizer and preprocessing.

    Args:
        run: Run folder of stage 2 or 3.
        quantized: Keep the quantization of a language model that was trained with it. Otherwise
            its weights are loaded in full precision.

    Raises:
        CmrvlmError: A file is missing, or the run has other labels or another preprocessing.
    """
    config = read_config(run)
    _check_labels(run)
    preprocessing = build(config["transform"]["preprocessing"], "transform.preprocessing")
    check_preprocessing(run, preprocessing)
    tokenizer = load_tokenizer(run / TOKENIZER)
    network = config["llm"]["network"]
    if (run / ARCHITECTURE).is_dir():
        # All weights are in the run: the source of the language model is not needed any more.
        network |= {"path": str(run / ARCHITECTURE), "package": None, "weights": False}
    in_full = bool(network.get("quantization")) and not quantized
    if in_full:
        network["quantization"] = None
    model = build_model(config, tokenizer)
    check_base(model, run, quantized=in_full)
    if not isinstance(model, VisionLanguageModel):
        raise CmrvlmError(
            "this is a run of stage 1, which answers no questions",
            file=run,
            field="run",
            remedy="Give a run of stage 2 or 3.",
        )
    load_weights(model, run / WEIGHTS)
    model.eval()
    return TrainedRun(
        folder=run,
        config=config,
        model=model,
        collator=build_collator(model, tokenizer),
        preprocessing=preprocessing,
        mixture=build(config["mix"], "mix"),
        familiarity=Familiarity.load(run / FAMILIARITY),
    )


def _check_labels(run: Path) -> None:
    """Refuse a run whose label schema differs from the current one.

    Raises:
        CmrvlmError: The schemas differ.
    """
    saved = json.loads((run / LABELS).read_text())
    current = label_schema()
    # A structure that was added later changes no weight, as prompts name structures in words.
    current["structures"] = {
        name: value for name, value in current["structures"].items() if name in saved["structures"]
    }
    if saved != current:
        raise CmrvlmError(
            "the run was made with other labels than this version has",
            file=run / LABELS,
            remedy="Use the version that trained it.",
        )


def check_base(model: nn.Module, run: Path, *, quantized: bool = False) -> None:
    """Refuse a pretrained language model other than the one that the run was trained on.

    Args:
        model: Model with its language model.
        run: Run folder.
        quantized: Compare with the fingerprint of the quantized weights.

    Raises:
        CmrvlmError: The weights differ.
    """
    path = run / BASE
    if not path.is_file():
        return
    saved = json.loads(path.read_text())
    llm = model.llm
    assert isinstance(llm, LanguageModel)
    if llm.fingerprint(quantized=quantized) != saved["fingerprint"]:
        raise CmrvlmError(
            "the language model has other weights than the one that was trained on",
            file=str(llm.source),
            field="llm.network.path",
            remedy=f"Give the model that the run was trained on: {saved['source']}.",
        )


def load_weights(model: nn.Module, path: Path) -> None:
    """Load all weights of a model from a file that holds exactly those.

    Args:
        model: Model that takes the weights.
        path: File in safetensors format.

    Raises:
        CmrvlmError: The file is missing, names or shapes differ, or a value is not finite.
    """
    if not path.is_file():
        raise CmrvlmError(
            "the run has no weights",
            file=path,
            remedy="Let the training finish; one that was stopped goes on with ckpt_path=….",
        )
    weights = load_file(path)
    check_weights(
        weights.items(),
        path,
        "run",
        "Train it again: a training that is stopped by such numbers says why.",
    )
    expected = own_weights(model)
    differing = sorted(weights.keys() ^ expected.keys())
    differing += [
        key
        for key in sorted(weights.keys() & expected.keys())
        if weights[key].shape != expected[key].shape
    ]
    if differing:
        raise CmrvlmError(
            f"{len(differing)} weights do not fit the model, the first is '{differing[0]}'",
            file=path,
            remedy="Use the configuration that the run was trained with.",
        )
    model.load_state_dict(weights, strict=False)


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
    saved = json.loads(path.read_text())
    if "layout" not in saved:
        log.warning(
            "%s: this run was trained on rows, columns and slices as files stored them; "
            "it is shown all in one layout now, so that answers about files in another order "
            "may be better, or worse: train it again",
            run.name,
        )
        saved["layout"] = LAYOUT
    difference = preprocessing.first_difference(saved)
    if difference is not None:
        step, trained, current = difference
        raise CmrvlmError(
            f"trained with {trained}, asked for {current}",
            file=path,
            field=f"transform.preprocessing.steps.{step}",
            remedy="A model is applied with the preprocessing that it was trained with.",
        )


def weights_hash(run: Path) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of a run's weights file."""
    return hashlib.sha256((run / WEIGHTS).read_bytes()).hexdigest()[:16]
