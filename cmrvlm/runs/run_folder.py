"""Write and read run folders: all that is needed to evaluate and apply a model, nothing that is unpickled."""

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


def own_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return the state dict with each tied weight once, under its first name, without those of a pretrained base."""
    seen: set[int] = set()
    weights = {}
    borrowed = borrowed_keys(model)
    for key, value in model.state_dict().items():
        if key in borrowed or (value.data_ptr() in seen and value.numel()):
            continue
        seen.add(value.data_ptr())
        weights[key] = value
    return weights


def label_schema() -> dict[str, Any]:
    """Return names and order of everything that weights depend on."""
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

    A model that is yet to be trained leaves no weights: they could be taken for its.
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
        CmrvlmError: The folder is no run folder, or its configuration is not resolved: what is looked up later could
            be anything, and runs come from other people.
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
    """A trained model with all that belongs to it.

    Attributes:
        folder: Run folder.
        config: Resolved configuration.
        model: Network in evaluation mode.
        collator: Tokenizer and token counts.
        preprocessing: The same as in training.
        mixture: Tasks of the training.
    """

    folder: Path
    config: Config
    model: VisionLanguageModel
    collator: Collator
    preprocessing: Preprocessing
    mixture: Mixture


def load_run(run: Path, *, quantized: bool = True) -> TrainedRun:
    """Load a trained model with its tokenizer and preprocessing.

    Args:
        run: Run folder of stage 2 or 3.
        quantized: Load a language model that was trained in quantized form as such, else in full.

    Raises:
        CmrvlmError: Something is missing, or was made under other labels or another preprocessing.
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
    )


def _check_labels(run: Path) -> None:
    """Refuse a run that was made with other labels than there are now.

    Raises:
        CmrvlmError: They differ.
    """
    saved = json.loads((run / LABELS).read_text())
    current = label_schema()
    # A structure that came later changes no weight: it is named in words.
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
    """Refuse a language model that is not the one that the run's additions were trained on.

    Args:
        model: With its language model.
        run: Run folder.
        quantized: The run had it in quantized form.

    Raises:
        CmrvlmError: Its weights are others.
    """
    path = run / BASE
    if not path.is_file():
        return
    kept, llm = json.loads(path.read_text()), model.llm
    assert isinstance(llm, LanguageModel)
    if llm.fingerprint(quantized=quantized) != kept["fingerprint"]:
        raise CmrvlmError(
            "the language model has other weights than the one that was trained on",
            file=str(llm.source),
            field="llm.network.path",
            remedy=f"Give the model that the run was trained on: {kept['source']}.",
        )


def load_weights(model: nn.Module, path: Path) -> None:
    """Load every weight of the model, and no other.

    Raises:
        CmrvlmError: Names or shapes differ, or a number is not finite; the first is named.
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
    wanted = own_weights(model)
    odd = sorted(weights.keys() ^ wanted.keys())
    odd += [
        key
        for key in sorted(weights.keys() & wanted.keys())
        if weights[key].shape != wanted[key].shape
    ]
    if odd:
        raise CmrvlmError(
            f"{len(odd)} weights do not fit the model, the first is '{odd[0]}'",
            file=path,
            remedy="Use the configuration that the run was trained with.",
        )
    model.load_state_dict(weights, strict=False)


def check_preprocessing(run: Path, preprocessing: Preprocessing) -> None:
    """Refuse another preprocessing than the training had.

    A run that states no layout was trained on images as their files stored them, which is said.

    Raises:
        CmrvlmError: A step differs; both versions are shown.
    """
    path = run / PREPROCESSING
    if not path.is_file():
        raise CmrvlmError(
            "the run does not say how its images were prepared", file=path, remedy="Train it again."
        )
    made = json.loads(path.read_text())
    if "layout" not in made:
        log.warning(
            "%s: this run was trained on rows, columns and slices as files stored them; it is shown all in one layout "
            "now, so that answers about files in another order may be better, or worse: train it again",
            run.name,
        )
        made["layout"] = LAYOUT
    difference = preprocessing.first_difference(made)
    if difference is not None:
        step, trained, current = difference
        raise CmrvlmError(
            f"trained with {trained}, asked for {current}",
            file=path,
            field=f"transform.preprocessing.steps.{step}",
            remedy="A model is applied with the preprocessing that it was trained with.",
        )


def weights_hash(run: Path) -> str:
    """Return a short hash of a run's weights, to name them in results."""
    return hashlib.sha256((run / WEIGHTS).read_bytes()).hexdigest()[:16]
