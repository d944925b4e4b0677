"""Write and read run folders, which hold all that evaluation and prediction need.

No file in them is a pickle, so that a run of another person can be loaded safely.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from cmrvlm.config.build import build, check_plain
from cmrvlm.config.command import Config
from cmrvlm.config.network_size import check_numbers, no_larger_than
from cmrvlm.errors import CmrvlmError, missing_run, naming_file
from cmrvlm.instructions.collate import Collator
from cmrvlm.language_model.finite import check_weights
from cmrvlm.language_model.network import LanguageModel, borrowed_keys
from cmrvlm.language_model.tokenizer import load_tokenizer
from cmrvlm.models.familiarity import Familiarity
from cmrvlm.models.vision_language_model import VisionLanguageModel
from cmrvlm.runs.fingerprints import check_fingerprints, file_hash, write_fingerprints
from cmrvlm.runs.run_checks import (
    BASE,
    LABELS,
    PREPROCESSING,
    check_base,
    check_labels,
    check_preprocessing,
    describe_base,
    label_schema,
)
from cmrvlm.runs.run_claim import WEIGHTS
from cmrvlm.runs.run_files import naming_damage, read_weights, read_yaml_mapping
from cmrvlm.runs.wiring import build_collator, build_model
from cmrvlm.study.atomic_files import atomic_files, atomic_write, write_json
from cmrvlm.tasks.mixture import Mixture
from cmrvlm.transforms.preprocessing import Preprocessing

CONFIG = "config.yaml"
TOKENIZER = "tokenizer"
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
    with atomic_write(run / CONFIG) as temporary:
        temporary.write_text(yaml.safe_dump(config, allow_unicode=True, sort_keys=False))
    if trained:
        weights = {
            key: value.detach().cpu().contiguous() for key, value in own_weights(model).items()
        }
        with atomic_write(run / WEIGHTS) as temporary:
            save_file(weights, temporary)
    # A training that goes on reads it from there, also when it was killed just here.
    with atomic_files(run / TOKENIZER) as folder:
        tokenizer.save_pretrained(folder)
    llm = getattr(model, "llm", None)
    if isinstance(llm, LanguageModel) and llm.borrows:
        write_json(run / BASE, describe_base(llm))
    elif isinstance(llm, LanguageModel) and llm.source is not None:
        with atomic_files(run / ARCHITECTURE) as folder:
            llm.network.config.save_pretrained(folder)
    write_json(run / LABELS, label_schema())
    write_json(run / PREPROCESSING, preprocessing.spec())
    write_fingerprints(run)


def read_config(run: Path) -> Config:
    """Read the resolved configuration of a run.

    Raises:
        CmrvlmError: The folder is no run folder, or its configuration holds interpolations. They
            could resolve to anything, and runs come from other people.
    """
    path = run / CONFIG
    if not path.exists():
        raise missing_run(path)
    config = read_yaml_mapping(path)
    with naming_file(path), naming_damage(path):
        check_plain(config)
        check_numbers(config)
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
    check_fingerprints(run)
    check_labels(run)
    with naming_damage(run / CONFIG):
        preprocessing = build(config["transform"]["preprocessing"], "transform.preprocessing")
        mixture = build(config["mix"], "mix")
    check_preprocessing(run, preprocessing)
    tokenizer = load_tokenizer(run / TOKENIZER)
    _check_there(run / WEIGHTS)
    with naming_damage(run / CONFIG):
        model = _build_network(config, run, tokenizer, quantized=quantized)
    load_weights(model, run / WEIGHTS)
    model.eval()
    return TrainedRun(
        folder=run,
        config=config,
        model=model,
        collator=build_collator(model, tokenizer),
        preprocessing=preprocessing,
        mixture=mixture,
        familiarity=Familiarity.load(run / FAMILIARITY),
    )


def _build_network(
    config: Config, run: Path, tokenizer: PreTrainedTokenizerBase, *, quantized: bool
) -> VisionLanguageModel:
    """Build the network of a run, with random weights in place of those that the run holds.

    Raises:
        CmrvlmError: It is a run of stage 1, has another base model, or is larger than its weights.
    """
    network = config["llm"]["network"]
    holds_all_weights = not (run / BASE).is_file()
    if (run / ARCHITECTURE).is_dir():
        # All weights are in the run: the source of the language model is not needed any more.
        network |= {"path": str(run / ARCHITECTURE), "package": None, "weights": False}
    in_full = bool(network.get("quantization")) and not quantized
    if in_full:
        network["quantization"] = None
    if holds_all_weights:
        weight_bytes = (run / WEIGHTS).stat().st_size
        remedy = "Copy the run folder again from where it was trained."
        with no_larger_than(weight_bytes, run / CONFIG, "run", remedy):
            model = build_model(config, tokenizer)
    else:
        model = build_model(config, tokenizer)
    check_base(model, run, quantized=in_full)
    if not isinstance(model, VisionLanguageModel):
        raise CmrvlmError(
            "this is a run of stage 1, which answers no questions",
            file=run,
            field="run",
            remedy="Give a run of stage 2 or 3.",
        )
    return model


def _check_there(path: Path) -> None:
    """Refuse a run without weights.

    Raises:
        CmrvlmError: There is no such file.
    """
    if not path.exists():
        raise CmrvlmError(
            "the run has no weights",
            file=path,
            remedy="Let the training finish; one that was stopped goes on with ckpt_path=….",
        )


def load_weights(model: nn.Module, path: Path) -> None:
    """Load all weights of a model from a file that holds exactly those.

    Args:
        model: Model that takes the weights.
        path: File in safetensors format.

    Raises:
        CmrvlmError: The file is missing or damaged, names, shapes or kinds of numbers differ, or a
            value is not finite.
    """
    _check_there(path)
    weights = read_weights(path)
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
        # Whole numbers would be taken for weights without a word.
        or weights[key].is_floating_point() != expected[key].is_floating_point()
    ]
    if differing:
        raise CmrvlmError(
            f"{len(differing)} weights do not fit the model, the first is '{differing[0]}'",
            file=path,
            remedy="Use the configuration that the run was trained with.",
        )
    model.load_state_dict(weights, strict=False)


def weights_hash(run: Path) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of a run's weights file."""
    return file_hash(run / WEIGHTS)[:16]
