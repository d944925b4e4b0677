"""Write preprocessed studies as shards, in blocks that a writer which was stopped need not repeat.

Blocks are written into the folder `.writing` of the set, each finished by a rename to a name with a
hash of what is in it: the next writer takes over the blocks that are the same. At the end the chunks
of all blocks are moved into the set, and its index, without which it is no set, is written last.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track
from safetensors.numpy import save as pack

from cmrvlm.errors import CmrvlmError
from cmrvlm.study.atomic_files import write_json
from cmrvlm.transforms.preprocessing import Preprocessing
from data_modules.sources.base import Source
from data_modules.storage.cache import StudyCache
from data_modules.storage.in_use import exclusive
from data_modules.storage.shard_index import INDEX_FILE
from data_modules.storage.shards import FORMAT, import_litdata

_WRITING = ".writing"
# Studies whose shards are written again when a writer is stopped among them.
_BLOCK = 256
_GIGABYTE = 1e9


@dataclass(frozen=True)
class _Block:
    """Some studies that are written together.

    Attributes:
        number: Position among the blocks.
        study_ids: The studies.
        index: Content of the item that lists all studies, for the first block; None for others.
        folder: Folder of the block once it is finished.
    """

    number: int
    study_ids: Sequence[str]
    index: bytes | None
    folder: Path


@dataclass(frozen=True)
class ShardWriter:
    """A writer of all studies of a source as shards.

    Args:
        source: Source of the studies.
        preprocessing: Steps that are applied to each study.
        out: A folder that holds no shards yet.
        cache_dir: Folder of the cache that is filled on the way.
        chunk_bytes: Size of a chunk, such as `64MB`.
        allowed_failures: Broken studies that may be left out before it is an error.
        workers: Studies that are preprocessed at once; None takes one a core, eight at most.
    """

    source: Source
    preprocessing: Preprocessing
    out: str
    cache_dir: str
    chunk_bytes: str = "64MB"
    allowed_failures: int = 0
    workers: int | None = None

    def write(self) -> int:
        """Preprocess and write the studies, and return their number.

        Raises:
            CmrvlmError: There are shards already, too many studies cannot be read, or the disk is
                full.
        """
        out = Path(self.out)
        if (out / INDEX_FILE).is_file():
            raise CmrvlmError(
                "there are shards already", file=out, field="out", remedy="Give another folder."
            )
        cache = StudyCache(Path(self.cache_dir), self.source, self.preprocessing, self.workers)
        failures = cache.fill(self.source.study_ids(), self.allowed_failures)
        study_ids = [name for name in self.source.study_ids() if name not in failures]
        if not study_ids:
            raise CmrvlmError(
                "the data holds no study", field="data", remedy="Check the root of the data."
            )
        drafts = out / _WRITING
        with exclusive(drafts, "out"):
            try:
                self._write_set(cache, study_ids, drafts)
            except OSError as error:
                raise self._not_writable(error, cache, study_ids) from error
        shutil.rmtree(drafts, ignore_errors=True)
        return len(study_ids)

    def _write_set(self, cache: StudyCache, study_ids: Sequence[str], drafts: Path) -> None:
        """Write all blocks, and move them into the set.

        Args:
            cache: Cache that holds the studies.
            study_ids: Studies to write.
            drafts: Folder of the blocks.
        """
        blocks = list(self._blocks(cache, study_ids, drafts))
        known = {block.folder.name for block in blocks}
        for path in list(drafts.iterdir()):
            # Blocks of a writer that had other studies, and half of one.
            if path.is_dir() and path.name not in known:
                shutil.rmtree(path)
        for block in track(blocks, "Writing shards"):
            if not block.folder.is_dir():
                self._write_block(cache, block, drafts / "block")

        chunks: list[dict[str, Any]] = []
        for block in blocks:
            index = json.loads((block.folder / INDEX_FILE).read_text(encoding="utf-8"))
            for chunk in index["chunks"]:
                name = f"chunk-{block.number}-{chunk['filename'].rpartition('-')[2]}"
                written = block.folder / chunk["filename"]
                # A writer that was stopped just here has moved some of them.
                if written.is_file():
                    os.replace(written, drafts.parent / name)
                chunks.append({**chunk, "filename": name})
        write_json(drafts.parent / INDEX_FILE, {**index, "chunks": chunks})

    def _blocks(
        self, cache: StudyCache, study_ids: Sequence[str], drafts: Path
    ) -> Iterator[_Block]:
        """Yield the blocks of studies, each with a name that changes with its content."""
        index = json.dumps(
            {
                "format": FORMAT,
                "preprocessing": self.preprocessing.spec(),
                "studies": self._records(cache, study_ids),
            }
        ).encode()
        for number, start in enumerate(range(0, len(study_ids), _BLOCK)):
            members = study_ids[start : start + _BLOCK]
            content = index if number == 0 else None
            digest = hashlib.sha256(json.dumps([FORMAT, self.chunk_bytes]).encode())
            digest.update(content or b"")
            for study_id in members:
                digest.update(str(cache.path(study_id)).encode())
            folder = drafts / f"block-{number:05d}-{digest.hexdigest()[:16]}"
            yield _Block(number, members, content, folder)

    def _write_block(self, cache: StudyCache, block: _Block, draft: Path) -> None:
        """Write the studies of a block into a folder, and rename it."""
        shutil.rmtree(draft, ignore_errors=True)
        writer = import_litdata().Cache(str(draft), chunk_bytes=self.chunk_bytes)
        item = 0
        if block.index is not None:
            writer[item] = block.index
            item += 1
        for study_id in block.study_ids:
            files = {
                name: np.frombuffer(content, np.uint8)
                for name, content in cache.contents(study_id).items()
            }
            writer[item] = pack(files)
            item += 1
        writer.done()
        writer.merge()
        os.replace(draft, block.folder)

    def _records(self, cache: StudyCache, study_ids: Sequence[str]) -> list[dict[str, Any]]:
        """Return what the index says of each study."""
        split = self.source.declared_split() or {}
        part_of = {study_id: part for part, members in split.items() for study_id in members}
        all_ids = self.source.study_ids()
        patient_of = dict(zip(all_ids, self.source.patient_ids(), strict=True))
        stratum_of = dict(zip(all_ids, self.source.strata(), strict=True))
        return [
            {
                "study": study_id,
                "patient": patient_of[study_id],
                "stratum": stratum_of[study_id],
                "part": part_of.get(study_id),
                "sequences": cache.sequences(study_id),
                "labels": cache.labels_as_json(study_id),
            }
            for study_id in study_ids
        ]

    def _not_writable(
        self, error: OSError, cache: StudyCache, study_ids: Sequence[str]
    ) -> CmrvlmError:
        """Return the error for a folder that cannot be written."""
        size = sum(len(content) for content in cache.contents(study_ids[0]).values())
        return CmrvlmError(
            f"the shards cannot be written ({error.strerror}); {len(study_ids)} studies take about "
            f"{len(study_ids) * size / _GIGABYTE:.2g} GB",
            file=self.out,
            field="out",
            remedy="Free the space or give another folder; the same command goes on.",
        )
