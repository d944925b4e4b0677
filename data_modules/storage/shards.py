"""Preprocessed studies in shards, for archives larger than one disk or machine: a folder, or an object store.

A shard set is self-contained: its first item lists the studies with patient, stratum and part, and says with which
preprocessing they were made; every other item is one study, byte for byte what the cache holds. `litdata` packs items
into chunks and fetches the chunks that are asked for.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track
from safetensors.numpy import load as unpack
from safetensors.numpy import save as pack

from cmrvlm.errors import CmrvlmError
from cmrvlm.study.codec import study_from_files
from cmrvlm.study.study import Study, StudyLabels
from cmrvlm.transforms.preprocessing import Preprocessing
from data_modules.sources.base import Source
from data_modules.split import PARTS, Split
from data_modules.storage.cache import StudyCache
from data_modules.storage.store import StudyStore

_FORMAT = 1


@dataclass(frozen=True)
class ShardWriter:
    """Writes all studies of a source.

    Args:
        source: Where they come from.
        preprocessing: What is done to them.
        out: A folder that holds no shards yet.
        cache_dir: Folder of the cache that is filled on the way.
        chunk_bytes: Size of a chunk, such as `64MB`.
    """

    source: Source
    preprocessing: Preprocessing
    out: str
    cache_dir: str
    chunk_bytes: str = "64MB"

    def write(self) -> int:
        """Preprocess and write the studies, and return their number.

        Raises:
            CmrvlmError: There are shards already, or a study cannot be read.
        """
        if (Path(self.out) / "index.json").is_file():
            raise CmrvlmError(
                "there are shards already",
                file=self.out,
                field="out",
                remedy="Give another folder.",
            )
        source, studies = self.source, self.source.study_ids()
        store = StudyCache(Path(self.cache_dir), source, self.preprocessing)
        store.fill(studies)
        part_of = {
            study: part for part, own in (source.declared_split() or {}).items() for study in own
        }
        known = zip(studies, source.patient_ids(), source.strata(), strict=True)
        rows = [
            {
                "study": study,
                "patient": patient,
                "stratum": stratum,
                "part": part_of.get(study),
                "sequences": store.sequences(study),
            }
            for study, patient, stratum in known
        ]
        head = {"format": _FORMAT, "preprocessing": self.preprocessing.spec(), "studies": rows}
        writer = _litdata().Cache(self.out, chunk_bytes=self.chunk_bytes)
        writer[0] = json.dumps(head).encode()
        for index, study in enumerate(track(studies, "Writing shards"), start=1):
            files = {
                name: np.frombuffer(content, np.uint8)
                for name, content in store.contents(study).items()
            }
            writer[index] = pack(files)
        writer.done()
        writer.merge()
        return len(studies)


def _litdata() -> Any:
    """The streaming part of litdata.

    Raises:
        CmrvlmError: It is not installed.
    """
    if importlib.util.find_spec("litdata") is None:
        raise CmrvlmError(
            "shards need litdata", field="data", remedy="pip install 'cmrvlm[shards]'."
        )
    return importlib.import_module(
        "litdata.streaming"
    )  # an extra: who has one disk needs none of it


class _NoPickle:
    """In place of litdata's serializer for any Python object: reading shards never runs code from them."""

    def can_serialize(self, item: object) -> bool:
        return False

    def setup(self, data_format: str) -> None:
        raise CmrvlmError(
            "the shards hold pickled objects, which are never read",
            field="data.root",
            remedy="Write them with cmrvlm.shard.",
        )


class ShardSource(Source):
    """Studies of a shard set.

    Args:
        root: Folder, or address such as `s3://bucket/folder`.
        local: Where chunks of a remote set are kept; None lets litdata choose.
    """

    def __init__(self, root: str, local: str | None = None) -> None:
        self.root, self.local = root, local
        self._opened: tuple[int, Any] | None = None
        head = json.loads(self._item(0))
        if head.get("format") != _FORMAT:
            raise CmrvlmError(
                "the shards have another format",
                file=root,
                field="data.root",
                remedy="Write them again with cmrvlm.shard.",
            )
        self._head: dict[str, Any] = head
        self._places = {row["study"]: place for place, row in enumerate(head["studies"], start=1)}

    def _item(self, index: int) -> bytes:
        if (
            self._opened is None or self._opened[0] != os.getpid()
        ):  # a loader's process opens its own
            self._opened = (os.getpid(), self._open())
        return bytes(self._opened[1][index])

    def _open(self) -> Any:
        streaming, serializers = _litdata(), {"pickle": _NoPickle()}
        if "://" in self.root:
            return streaming.StreamingDataset(
                self.root, cache_dir=self.local, serializers=serializers
            )
        if not (Path(self.root) / "index.json").is_file():
            raise CmrvlmError(
                "there are no shards here",
                file=self.root,
                field="data.root",
                remedy="Give the folder that cmrvlm.shard wrote.",
            )
        # Not the streaming data set: that asks the package index for its newest version at every start.
        return streaming.Cache(self.root, chunk_bytes="64MB", serializers=serializers)

    def study_ids(self) -> list[str]:
        """Ids in the order in which they were written."""
        return list(self._places)

    def patient_ids(self) -> list[str]:
        """The patient of each study."""
        return [row["patient"] for row in self._head["studies"]]

    def strata(self) -> list[str]:
        """What the source was stratified by."""
        return [row["stratum"] for row in self._head["studies"]]

    def declared_split(self) -> Split | None:
        """The split that the source declared."""
        rows = self._head["studies"]
        if all(row["part"] is None for row in rows):
            return None
        return {part: [row["study"] for row in rows if row["part"] == part] for part in PARTS}

    def row(self, study_id: str) -> dict[str, Any]:
        """What the list says of a study."""
        self.index_of(study_id)
        return dict(self._head["studies"][self._places[study_id] - 1])

    def contents(self, study_id: str) -> dict[str, bytes]:
        """A study as `cmrvlm.study.codec.study_files` writes it."""
        self.index_of(study_id)
        return {
            name: content.tobytes()
            for name, content in unpack(self._item(self._places[study_id])).items()
        }

    def load(self, study_id: str) -> Study:
        """A study as it was preprocessed."""
        return study_from_files(self.contents(study_id))

    def store(self, preprocessing: Preprocessing) -> ShardStore:
        """The studies for a data module.

        Raises:
            CmrvlmError: They were made with another preprocessing.
        """
        difference = preprocessing.first_difference(self._head["preprocessing"])
        if difference is not None:
            name, made, asked = difference
            raise CmrvlmError(
                f"the shards were made with {made}, asked for {asked}",
                file=self.root,
                field=f"transform.preprocessing.steps.{name}",
                remedy="Use the preprocessing of the shards, or write them again.",
            )
        return ShardStore(self)


class ShardStore(StudyStore):
    """The studies of a shard set; nothing is preprocessed any more.

    Args:
        source: The shard set.
    """

    def __init__(self, source: ShardSource) -> None:
        self.source = source

    def fill(self, study_ids: Iterable[str], allowed_failures: int = 0) -> dict[str, str]:
        """Studies that a split names and the shards lack."""
        known = set(self.source.study_ids())
        lacking = {
            study: f"{study} is not in the shards" for study in study_ids if study not in known
        }
        if len(lacking) > allowed_failures:
            raise CmrvlmError(
                f"{len(lacking)} studies are not in the shards; the first: {next(iter(lacking))}",
                field="data.split_file",
                remedy="Use the shards of that split.",
            )
        return lacking

    def sequences(self, study_id: str) -> list[str]:
        """Sequences that a study has."""
        return list(self.source.row(study_id)["sequences"])

    def labels(self, study_id: str) -> StudyLabels:
        """What is known of a study."""
        return self.whole(study_id).labels

    def whole(self, study_id: str) -> Study:
        """A study with all its series."""
        return self.source.load(study_id)

    def contents(self, study_id: str) -> Mapping[str, bytes]:
        """A study as files."""
        return self.source.contents(study_id)
