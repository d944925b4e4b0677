"""Export what a run learned for use elsewhere: `python -m cmrvlm.export run=<folder> to=merged`.

- `merged`: a run folder that holds all weights, the adapter's merged into the language model's.
- `adapter`: the adapter alone, as PEFT loads it onto the language model that it was trained on.
- `language_model`: the language model alone, merged, with its tokenizer, as Transformers loads it.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import hydra
from omegaconf import DictConfig
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import save_file

from cmrvlm.config.command import CONFIG_PATH, resolved, with_readable_errors
from cmrvlm.config.terminal import PlainConsole
from cmrvlm.errors import CmrvlmError
from cmrvlm.language_model.merge import merge_adapter, with_own_tokens
from cmrvlm.runs.fingerprints import write_fingerprints
from cmrvlm.runs.lineage import LINEAGE, SPLIT
from cmrvlm.runs.run_folder import TrainedRun, load_run, save_run

FORMS = ("merged", "adapter", "language_model")


def export(run: Path, to: str, out: Path) -> None:
    """Write a run in another form.

    Args:
        run: Run folder of stage 2 or 3.
        to: One of `FORMS`.
        out: Folder to write.

    Raises:
        CmrvlmError: The form is unknown, or the run was trained without an adapter.
    """
    if to not in FORMS:
        raise CmrvlmError(f"unknown form '{to}'", field="to", remedy=f"Known: {', '.join(FORMS)}.")
    trained = load_run(run, quantized=False)
    if to == "adapter":
        _write_adapter(trained, out)
        return
    merge_adapter(trained.model.llm)
    if to == "language_model":
        with_own_tokens(trained.model.llm).save_pretrained(out)
        trained.collator.tokenizer.save_pretrained(out)
        return
    _write_merged(trained, run, out)


def _write_merged(trained: TrainedRun, run: Path, out: Path) -> None:
    """Write a run folder whose adapter is merged, with the split and the lineage of the run."""
    trained.config["adapter"] = {"_target_": "cmrvlm.language_model.adapter.full"}
    save_run(out, trained.config, trained.model, trained.collator.tokenizer, trained.preprocessing)
    # The patients that it was trained on stay the same.
    for name in (SPLIT, LINEAGE):
        if (run / name).is_file():
            shutil.copyfile(run / name, out / name)
    write_fingerprints(out)


def _write_adapter(trained: TrainedRun, out: Path) -> None:
    """Write the adapter of a run as PEFT does.

    Raises:
        CmrvlmError: The run was trained without an adapter.
    """
    network = trained.model.llm.network
    configs: dict[str, LoraConfig] = getattr(network, "peft_config", {})
    if not configs:
        raise CmrvlmError(
            "the run was trained without additions", field="to", remedy="Use to=language_model."
        )
    out.mkdir(parents=True, exist_ok=True)
    weights = get_peft_model_state_dict(network, save_embedding_layers=False)
    # PEFT expects the names of the network inside of its own wrapper.
    tensors = {f"base_model.model.{name}": value.contiguous() for name, value in weights.items()}
    save_file(tensors, out / "adapter_model.safetensors")
    config = configs["default"]
    config.base_model_name_or_path = trained.model.llm.source
    config.task_type = "CAUSAL_LM"
    config.save_pretrained(str(out))


@hydra.main(version_base="1.3", config_path=CONFIG_PATH, config_name="export")
@with_readable_errors
def main(config: DictConfig) -> None:
    """Export the run and print the folder."""
    settings = resolved(config)
    export(Path(settings["run"]), settings["to"], Path(settings["out"]))
    PlainConsole().print(f"written to {settings['out']}", markup=False)


if __name__ == "__main__":
    main()
