"""Turn a DICOM archive into de-identified NIfTI studies with a manifest.

`python -m cmrvlm.ingest source=<folder> out=<folder>`
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from cmrvlm.config.build import build
from cmrvlm.config.command import CONFIG_PATH, Config, resolved, with_readable_errors
from cmrvlm.config.console import print_table
from cmrvlm.config.terminal import PlainConsole
from cmrvlm.study.atomic_files import write_json

# Exit status when something could not be read, or somebody should look at a study.
PARTIAL = 3


def ingest(config: Config, console: PlainConsole) -> dict[str, Any]:
    """Ingest an archive as `conf/ingest.yaml` says.

    Args:
        config: Plain configuration.
        console: PlainConsole for the progress and the table.

    Returns:
        Content of `ingest.json`.
    """
    ingestion = build(config["ingest"], "ingest")
    archive = ingestion.find_files(
        lambda files, count: track(files, "Reading headers", count, console=console)
    )
    count = len(archive.studies) + len(archive.empty_studies())
    studies = track(ingestion.run(archive), "Reading studies", count, console=console)
    ingested = list(studies)
    out = Path(config["out"])
    summary: dict[str, Any] = ingestion.summary(ingested, archive.left_out, out)
    write_json(out / "ingest.json", summary)
    print_table(_decision_table(ingested), console)
    for reason, count in summary["files_left_out"].items():
        console.print(f"{count} files left out: {reason}", markup=False)
    return summary


def _decision_table(ingested: list[Any]) -> Table:
    """Build the table of what was decided about each stack of each study."""
    title = f"{len(ingested)} studies"
    table = Table("study", "sequence", "slices", "phases", "reasons", title=title)
    for study in ingested:
        # Text of others is no markup.
        study_id = escape(study.study_id)
        for decision in study.decisions:
            sequence = decision["sequence"] or "left out"
            if decision["ambiguous"]:
                sequence += " (ambiguous)"
            reasons = "; ".join((*decision["reasons"], *decision["notes"]))
            slices = str(decision["slices"])
            phases = str(decision["phases"])
            table.add_row(study_id, sequence, slices, phases, escape(reasons))
        if study.problem:
            table.add_row(study_id, "failed", "", "", escape(study.problem))
        for doubt in study.doubts:
            table.add_row(study_id, "look at it", "", "", escape(doubt))
    return table


@hydra.main(version_base="1.3", config_path=CONFIG_PATH, config_name="ingest")
@with_readable_errors
def main(config: DictConfig) -> None:
    """Ingest the archive and exit with status 3 when something is missing or in doubt."""
    summary = ingest(resolved(config), PlainConsole(width=150))
    if summary["partial"]:
        sys.exit(PARTIAL)


if __name__ == "__main__":
    main()
