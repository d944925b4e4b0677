"""The list of studies that could not be read."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from cmrvlm.study.atomic_files import atomic_write


def write_failures(path: Path, failures: Mapping[str, str]) -> None:
    """Write a table with the columns `study` and `reason`.

    Args:
        path: File to write.
        failures: Reason by study id; a reason names no folder, which could name a patient.
    """
    with (
        atomic_write(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(("study", "reason"))
        writer.writerows(failures.items())
