"""Preprocessed studies in shards: a folder or an object store, for archives larger than one disk.

A shard set is self-contained. Its first item is an index: it lists the studies with patient,
stratum, part of the split and labels, and holds the settings of the preprocessing. Every other item is one
study, byte for byte as the cache holds it. `litdata` packs items into chunks and fetches the chunks
that are read.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.numpy import load as unpack

from cmrvlm.errors import CmrvlmError
from cmrvlm.study.codec import labels_from_json, study_from_files
from cmrvlm.study.study import Study, StudyLabels
from cmrvlm.study.vocabulary import SEQUENCES
from cmrvlm.transforms.preprocessing import Preprocessing
from data_modules.sources.base import Source
from data_modules.split import PARTS, Split
from data_modules.storage.shard_index import INDEX_FILE, check_index
from data_modules.storage.store import StudyStore

# Written into every shard set; sets of another format are refused.
FORMAT = 2

# Item of a shard set that lists the studies; the studies follow it.
INDEX_ITEM = 0
FIRST_STUDY_ITEM = 1


def import_litdata() -> Any:
    """Import the streaming part of litdata.

    Raises:
        CmrvlmError: It is not installed.
    """
    # It is an extra: whoever has one disk needs none of it.
    if importlib.util.find_spec("litdata") is None:
        raise CmrvlmError(
            "shards need litdata", field="data", remedy="pip install 'cmrvlm[shards]'."
        )
    return importlib.import_module("litdata.streaming")


class _PickleRefused:
    """A replacement for litdata's serializer of Python objects, which refuses to unpickle."""

    def can_serialize(self, item: object) -> bool:
        """Return False, so that litdata chooses another serializer to write with."""
        return False

    def setup(self, data_format: str) -> None:
        """Refuse to read pickled objects."""
        raise CmrvlmError(
            "the shards hold pickled objects, which are never read",
            field="data.root",
            remedy="Write them with cmrvlm.shard.",
        )


class ShardSource(Source):
    """Studies of a shard set.

    Args:
        root: Folder, or address such as `s3://bucket/folder`.
        local: Folder that chunks of a remote set are kept in; None lets litdata choose.
    """

    def __init__(self, root: str, local: str | None = None) -> None:
        self.root = root
        self.local = local
        self._reader: Any = None
        self._reader_process: int | None = None

        with self._naming_set():
            index = json.loads(self._read_item(INDEX_ITEM))
            has_format = index["format"] == FORMAT
        if not has_format:
            raise CmrvlmError(
                "the shards have another format",
                file=root,
                field="data.root",
                remedy="Write them again with cmrvlm.shard.",
            )
        with self._naming_set():
            self._preprocessing: dict[str, Any] = dict(index["preprocessing"])
            self._records = [_checked_record(record) for record in index["studies"]]

    def _read_item(self, item: int) -> bytes:
        """Read the content of one item of the set."""
        # A loader's worker process cannot share the open files of its parent.
        if self._reader_process != os.getpid():
            self._reader = self._open()
            self._reader_process = os.getpid()
        return bytes(self._reader[item])

    @contextmanager
    def _naming_set(self) -> Iterator[None]:
        """Turn errors of reading a set into one that names it.

        Raises:
            CmrvlmError: The set is damaged, or its writer has changed it.
        """
        try:
            yield
        except CmrvlmError:
            raise
        except (
            OSError,
            ValueError,
            TypeError,
            LookupError,
            AttributeError,
            AssertionError,
            RecursionError,
            SafetensorError,
        ) as error:
            raise CmrvlmError(
                f"the shards are damaged ({type(error).__name__}: {str(error)[:200]})",
                file=self.root,
                field="data.root",
                remedy="Write them again with cmrvlm.shard.",
            ) from error

    def _open(self) -> Any:
        """Open the set with litdata.

        Raises:
            CmrvlmError: There is none, its index leads elsewhere, or litdata is not installed.
        """
        streaming = import_litdata()
        serializers = {"pickle": _PickleRefused()}
        if "://" in self.root:
            dataset = streaming.StreamingDataset(
                self.root, cache_dir=self.local, serializers=serializers
            )
            # Until now the index alone was downloaded, and nothing that it names.
            check_index(Path(dataset.input_dir.path), self.root, has_chunks=False)
            return dataset
        if not (Path(self.root) / INDEX_FILE).is_file():
            raise CmrvlmError(
                "there are no shards here",
                file=self.root,
                field="data.root",
                remedy="Give the folder that cmrvlm.shard wrote.",
            )
        check_index(Path(self.root), self.root, has_chunks=True)
        # The streaming data set would ask the package index for its newest version at every start.
        return streaming.Cache(self.root, chunk_bytes="64MB", serializers=serializers)

    def study_ids(self) -> list[str]:
        """Return the ids in the order in which they were written."""
        return [record["study"] for record in self._records]

    def patient_ids(self) -> list[str]:
        """Return the patient of each study."""
        return [record["patient"] for record in self._records]

    def strata(self) -> list[str]:
        """Return the strata of the source that the shards were made from."""
        return [record["stratum"] for record in self._records]

    def declared_split(self) -> Split | None:
        """Return the split that the source declared, or None."""
        split: Split = {part: [] for part in PARTS}
        for record in self._records:
            if record["part"] is not None:
                split[record["part"]].append(record["study"])
        return split if any(split.values()) else None

    def sequences(self, study_id: str) -> list[str]:
        """Return the sequences of a study without loading its images."""
        return list(self._records[self.index_of(study_id)]["sequences"])

    def labels(self, study_id: str) -> StudyLabels:
        """Return the labels of a study without loading its images."""
        with self._naming_set():
            return labels_from_json(self._records[self.index_of(study_id)]["labels"])

    def contents(self, study_id: str) -> dict[str, bytes]:
        """Return the content of each file of a study; see `cmrvlm.study.codec.study_files`."""
        item = FIRST_STUDY_ITEM + self.index_of(study_id)
        with self._naming_set():
            files = unpack(self._read_item(item))
            return {name: content.tobytes() for name, content in files.items()}

    def load(self, study_id: str) -> Study:
        """Load a study as it was preprocessed."""
        return study_from_files(self.contents(study_id))

    def store(self, preprocessing: Preprocessing) -> ShardStore:
        """Return the studies as a store for a data module.

        Args:
            preprocessing: Preprocessing that the model needs.

        Raises:
            CmrvlmError: The shards were made with another preprocessing.
        """
        difference = preprocessing.first_difference(self._preprocessing)
        if difference is not None:
            step, written, needed = difference
            raise CmrvlmError(
                f"the shards were made with {written}, asked for {needed}",
                file=self.root,
                field=f"transform.preprocessing.steps.{step}",
                remedy="Use the preprocessing of the shards, or write them again.",
            )
        return ShardStore(self)


def _checked_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an index says of a study.

    Raises:
        ValueError: A name is no text, or a sequence or a part of the split is unknown.
        KeyError: Something is missing.
    """
    for name in ("study", "patient", "stratum"):
        if not isinstance(record[name], str):
            raise ValueError(f"{name} is {record[name]!r:.60}, a text is needed")
    if not set(record["sequences"]) <= set(SEQUENCES):
        raise ValueError(f"sequences are {record['sequences']!r:.60}")
    if record["part"] not in (None, *PARTS):
        raise ValueError(f"part is {record['part']!r:.60}")
    return {**record, "labels": dict(record["labels"])}


class ShardStore(StudyStore):
    """The studies of a shard set, which are preprocessed already.

    Args:
        source: The shard set.
    """

    def __init__(self, source: ShardSource) -> None:
        self.source = source

    def fill(self, study_ids: Iterable[str], allowed_failures: int = 0) -> dict[str, str]:
        """Check that the shards hold some studies; see `StudyStore.fill`."""
        known = set(self.source.study_ids())
        missing = {
            study_id: f"{study_id} is not in the shards"
            for study_id in study_ids
            if study_id not in known
        }
        if len(missing) > allowed_failures:
            raise CmrvlmError(
                f"{len(missing)} studies are not in the shards; the first: {next(iter(missing))}",
                field="data.split_file",
                remedy="Use the shards of that split.",
            )
        return missing

    def sequences(self, study_id: str) -> list[str]:
        """Return the sequences of a study without loading its images."""
        return self.source.sequences(study_id)

    def labels(self, study_id: str) -> StudyLabels:
        """Return the labels of a study without loading its images."""
        return self.source.labels(study_id)

    def load_complete(self, study_id: str) -> Study:
        """Load a study with all its series."""
        return self.source.load(study_id)

    def contents(self, study_id: str) -> Mapping[str, bytes]:
        """Return the content of each file of a study."""
        return self.source.contents(study_id)
