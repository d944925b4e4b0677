"""The list of studies that could not be read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cmrvlm.errors import CmrvlmError
from cmrvlm.study.atomic_files import atomic_write
from data_modules.tables.cells import write_rows

# Studies that could not be made when a job last had too many of them.
FAILURES_FILE = "failures.csv"
_GIGABYTE = 1e9


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
        write_rows(file, [("study", "reason"), *failures.items()])


def not_writable(folder: Path, error: OSError, remaining: int, study_bytes: int) -> CmrvlmError:
    """Return the error for a cache that cannot be written.

    Args:
        folder: Folder of the cache.
        error: What the operating system says.
        remaining: Number of studies that are still to be written.
        study_bytes: Size of one of them; 0 where it is unknown.
    """
    needed = f"{remaining} studies are still to be written"
    if study_bytes:
        needed += f", about {remaining * study_bytes / _GIGABYTE:.2g} GB"
    return CmrvlmError(
        f"the cache cannot be written ({error.strerror}); {needed}",
        file=folder,
        field="paths.cache",
        remedy="Free the space or give another folder; what is written stays.",
    )


def too_many(folder: Path, failures: Mapping[str, str], studies: int, allowed: int) -> CmrvlmError:
    """Return the error for more failures than allowed, and write their list.

    Args:
        folder: Folder of the cache.
        failures: Reason by study.
        studies: Number of all studies.
        allowed: Failures that are allowed.
    """
    first = next(iter(failures.values()))
    path = folder / FAILURES_FILE
    listed = f" All are in {path}."
    try:
        write_failures(path, failures)
    except OSError:
        # The cache may only be read.
        listed = ""
    return CmrvlmError(
        f"{len(failures)} of {studies} studies cannot be read; the first: {first}",
        field="data.allowed_failures",
        remedy=f"Mend the files, or allow more than {allowed} failures.{listed}",
    )
