"""Keep the rows of long work in files, each of which is complete or absent."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from cmrvlm.errors import CmrvlmError
from cmrvlm.study.atomic_files import atomic_write

# Whoever is killed loses at most the work of this time, and of the step that was under way.
SECONDS_BETWEEN_FILES = 30.0
_SUFFIX = ".parquet"


class Parts:
    """Rows in the files of a folder. Several processes may add to it, each under its own name.

    Args:
        folder: Folder of the files; it is made with the first of them.
        schema: Columns of the rows.
        writer: Number of the process.
    """

    def __init__(self, folder: Path, schema: pa.Schema, writer: int = 0) -> None:
        self.folder = folder
        self.schema = schema
        self._writer = writer
        self._waiting: list[Mapping[str, Any]] = []
        self._saved_at = time.monotonic()

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add rows; they are on the disk after the next `save`."""
        self._waiting += rows

    def save_when_due(self) -> None:
        """Write the rows that wait when the last file is older than `SECONDS_BETWEEN_FILES`."""
        if time.monotonic() - self._saved_at >= SECONDS_BETWEEN_FILES:
            self.save()

    def save(self) -> None:
        """Write the rows that wait into one more file."""
        if self._waiting:
            self.folder.mkdir(parents=True, exist_ok=True)
            table = pa.Table.from_pylist(self._waiting, schema=self.schema)
            number = len(list(self.folder.glob(f"{self._writer}-*{_SUFFIX}")))
            path = self.folder / f"{self._writer}-{number:06d}{_SUFFIX}"
            with atomic_write(path) as temporary:
                pq.write_table(table, temporary, compression="zstd")
        self._waiting = []
        self._saved_at = time.monotonic()

    def read(self, columns: Sequence[str], where: pc.Expression | None = None) -> pa.Table:
        """Return columns of the rows on the disk.

        Args:
            columns: Names of the columns.
            where: Rows to return; None returns all.

        Raises:
            CmrvlmError: A file is damaged.
        """
        files = sorted(self.folder.glob(f"*{_SUFFIX}"))
        if not files:
            return self.schema.empty_table().select(list(columns))
        kept = ds.dataset([str(path) for path in files], schema=self.schema)
        try:
            return kept.to_table(columns=list(columns), filter=where)
        except (pa.ArrowException, OSError) as error:
            raise CmrvlmError(
                f"the answers that were kept are damaged ({type(error).__name__})",
                file=self.folder,
                remedy="Delete the folder: what it held is asked again.",
            ) from error
