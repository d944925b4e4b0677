"""What a run learned, for use elsewhere: `python -m cmrvlm.export run=<folder> to=merged`.

- `merged`: a run folder that holds all weights, the additions merged into the language model's.
- `adapter`: the additions alone, as PEFT loads them onto the language model that they were trained on.
- `language_model`: the language model alone, merged, with its tokenizer, as Transformers loads it.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import hydra
from omegaconf import DictConfig
from peft import LoraConfig, get_peft_model_state_dict
from rich.console import Console
from safetensors.torch import save_file

from cmrvlm.config.command import CONFIG_PATH, explained, plain
from cmrvlm.errors import CmrvlmError
from cmrvlm.language_model.merge import merge_adapter, with_own_tokens
from cmrvlm.runs.lineage import LINEAGE, SPLIT
from cmrvlm.runs.run_folder import TrainedRun, load_run, save_run

KINDS = ("merged", "adapter", "language_model")


def export(run: Path, to: str, out: Path) -> None:
    """Write a run in another form.

    Args:
        run: Run folder of stage 2 or 3.
        to: One of `KINDS`.
        out: Folder to write.

    Raises:
        CmrvlmError: The form is unknown, or the run has nothing of the kind.
    """
    if to not in KINDS:
        raise CmrvlmError(f"unknown form '{to}'", field="to", remedy=f"Known: {', '.join(KINDS)}.")
    trained = load_run(run, quantized=False)
    if to == "adapter":
        _write_adapter(trained, out)
        return
    merge_adapter(trained.model.llm)
    if to == "language_model":
        with_own_tokens(trained.model.llm).save_pretrained(out)
        trained.collator.tokenizer.save_pretrained(out)
        return
    trained.config["adapter"] = {"_target_": "cmrvlm.language_model.adapter.full"}
    save_run(out, trained.config, trained.model, trained.collator.tokenizer, trained.preprocessing)
    for name in (SPLIT, LINEAGE):  # whom it was trained on does not change
        if (run / name).is_file():
            shutil.copyfile(run / name, out / name)


def _write_adapter(trained: TrainedRun, out: Path) -> None:
    network = trained.model.llm.network
    configs: dict[str, LoraConfig] = getattr(network, "peft_config", {})
    if not configs:
        raise CmrvlmError(
            "the run was trained without additions", field="to", remedy="Use to=language_model."
        )
    out.mkdir(parents=True, exist_ok=True)
    weights = get_peft_model_state_dict(network, save_embedding_layers=False)
    save_file(
        {f"base_model.model.{key}": value.contiguous() for key, value in weights.items()},
        out / "adapter_model.safetensors",
    )
    configs["default"].base_model_name_or_path = trained.model.llm.source
    configs["default"].task_type = "CAUSAL_LM"
    configs["default"].save_pretrained(str(out))


@hydra.main(version_base="1.3", config_path=CONFIG_PATH, config_name="export")
@explained
def main(config: DictConfig) -> None:
    """Entry point."""
    settings = plain(config)
    export(Path(settings["run"]), settings["to"], Path(settings["out"]))
    Console().print(f"written to {settings['out']}", markup=False)


if __name__ == "__main__":
    main()
