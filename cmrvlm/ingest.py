"""A DICOM archive to de-identified NIfTI studies with a manifest: `python -m cmrvlm.ingest source=… out=…`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import track
from rich.table import Table

from cmrvlm.config.build import build
from cmrvlm.config.command import CONFIG_PATH, Config, explained, plain
from cmrvlm.study.atomic_files import write_json

PARTIAL = 3  # exit status when something that should have been read could not be


def ingest(config: Config, console: Console) -> dict[str, Any]:
    """Ingest as `conf/ingest.yaml` says and return what is written to `ingest.json`.

    Args:
        config: Plain configuration.
        console: Where progress and the table go.
    """
    one = build(config["ingest"], "ingest")
    with console.status("Looking through the files"):
        studies, paths, left_out = one.files()
    found = list(track(one.run(studies, paths), "Reading studies", len(studies), console=console))
    out = Path(config["out"])
    summary = one.summary(found, left_out, out)
    write_json(out / "ingest.json", summary)
    table = Table("study", "sequence", "slices", "phases", "reasons", title=f"{len(found)} studies")
    for study in found:
        for decision in study.decisions:
            mark = " (ambiguous)" if decision["ambiguous"] else ""
            table.add_row(
                study.study_id,
                (decision["sequence"] or "left out") + mark,
                str(decision["slices"]),
                str(decision["phases"]),
                "; ".join((*decision["reasons"], *decision["notes"])),
            )
        if study.problem:
            table.add_row(study.study_id, "failed", "", "", study.problem)
    console.print(table)
    for reason, count in summary["files_left_out"].items():
        console.print(f"{count} files left out: {reason}", markup=False)
    return summary


@hydra.main(version_base="1.3", config_path=CONFIG_PATH, config_name="ingest")
@explained
def main(config: DictConfig) -> None:
    """Entry point."""
    summary = ingest(plain(config), Console(width=150))
    if summary["partial"]:
        sys.exit(PARTIAL)


if __name__ == "__main__":
    main()
