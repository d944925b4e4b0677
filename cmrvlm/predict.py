"""Apply a run to one study: `python -m cmrvlm.predict run=<folder> study=<folder or file>`."""

from __future__ import annotations

import logging
from typing import Any

import hydra
from omegaconf import DictConfig

from cmrvlm.config.build import build
from cmrvlm.config.command import CONFIG_PATH, Config, resolved, with_readable_errors
from cmrvlm.config.terminal import PlainConsole

log = logging.getLogger(__name__)


def predict(config: Config) -> dict[str, Any]:
    """Apply a run as `conf/predict.yaml` says and return the content of `prediction.json`.

    Args:
        config: Plain configuration.

    Raises:
        CmrvlmError: A setting is unknown, or the run or the study cannot be read.
    """
    # It loads PyTorch, which a misspelled key need not wait for.
    from cmrvlm.inference.cmrvlm import CMRVLM
    from cmrvlm.inference.prediction import check_settings
    from cmrvlm.study.reading_settings import ReadingSettings

    check_settings(config["language"], config["mask_values"])
    files = ReadingSettings(config["third_axis"], config["spacing_mm"])
    model = CMRVLM.from_pretrained(
        config["run"],
        device=config["device"],
        max_new_tokens=config["max_new_tokens"],
        decode=build(config["decoding"], "decoding"),
        reading=build(config["masks"], "masks"),
        gate=config["gate"],
        files=files,
    )
    return model.predict(
        config["study"],
        config["out"],
        language=config["language"],
        question=config["ask"],
        frames=config["frames"],
        mask_values=config["mask_values"],
        sequence=config["sequence"],
    )


@hydra.main(version_base="1.3", config_path=CONFIG_PATH, config_name="predict")
@with_readable_errors
def main(config: DictConfig) -> None:
    """Run the command."""
    settings = resolved(config)
    result = predict(settings)
    console = PlainConsole(soft_wrap=True, highlight=False)
    if "answer" in result:
        console.print(f"{result['question']}\n{result['answer']}\n", markup=False)
    console.print(f"{result['report']}\n", markup=False)
    log.info("written to %s", settings["out"])


if __name__ == "__main__":
    main()
