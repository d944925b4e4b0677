"""Shards of another person: an index or a chunk that leads elsewhere, runs code or lies is refused by name."""

import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save as pack

from cmrvlm.errors import CmrvlmError
from cmrvlm.study.codec import labels_to_json, study_files
from data_modules.storage.shards import FORMAT, ShardSource
from tests.watch import watched

pytest.importorskip("litdata")


def item_of(files: dict[str, bytes]) -> bytes:
    return pack({name: np.frombuffer(content, np.uint8) for name, content in files.items()})


def index_of(study, **changes) -> dict:
    record = {
        "study": study.study_id,
        "patient": study.patient_id,
        "stratum": "all",
        "part": None,
        "sequences": list(study.series),
        "labels": labels_to_json(study.labels),
    }
    return {"format": FORMAT, "preprocessing": {}, "studies": [record]} | changes


def write_set(folder: Path, *items: bytes) -> Path:
    import litdata.streaming

    writer = litdata.streaming.Cache(str(folder), chunk_bytes="64MB")
    for number, item in enumerate(items):
        writer[number] = item
    writer.done()
    writer.merge()
    return folder


@pytest.fixture(scope="module")
def good(tmp_path_factory, study):
    folder = tmp_path_factory.mktemp("good") / "set"
    return write_set(folder, json.dumps(index_of(study)).encode(), item_of(study_files(study)))


@pytest.fixture
def theirs(tmp_path, good, monkeypatch):
    """A copy of the set, with something precious and a module beside it."""
    folder = tmp_path / "theirs" / "set"
    shutil.copytree(good, folder)
    (tmp_path / "precious").mkdir()
    chunk = next(folder.glob("chunk*"))
    shutil.copy(chunk, tmp_path / "precious" / "data.bin")
    marker = tmp_path / "marker"
    (folder.parent / "evil.py").write_text(f"import os\nos.mkdir({str(marker)!r})\nload = dict\n")
    monkeypatch.chdir(folder.parent)
    monkeypatch.syspath_prepend(str(folder.parent))
    return folder


def refused(theirs: Path, study_id: str) -> str:
    """Read the set and return the one error, in little time, with nothing done elsewhere."""
    begin = time.monotonic()
    with watched(theirs.parent, theirs) as seen, pytest.raises(CmrvlmError) as error:
        ShardSource(str(theirs)).load(study_id)
    assert time.monotonic() - begin < 5
    assert seen == []
    assert not (theirs.parents[1] / "marker").exists()
    assert (theirs.parents[1] / "precious" / "data.bin").is_file()
    assert len(str(error.value)) < 1000
    return str(error.value)


def test_a_set_that_is_whole_is_read(theirs, study):
    read = ShardSource(str(theirs)).load(study.study_id)
    assert list(read.series) == list(study.series)


def put(index: dict, *way: str | int, value: object) -> None:
    for key in way[:-1]:
        index = index[key]
    index[way[-1]] = value


SPEC = json.dumps(
    [
        1,
        {
            "type": "collections.defaultdict",
            "context": json.dumps(
                {
                    "default_factory_module": "evil",
                    "default_factory_name": "load",
                    "dict_context": ["a"],
                }
            ),
            "children_spec": [{"type": None, "context": None, "children_spec": []}],
        },
    ]
)
DEEP = json.dumps([1, {"type": "builtins.list", "context": "null", "children_spec": []}])
# Where in index.json something is changed, and to what.
INDEX = {
    "a chunk above the set": (("chunks", 0, "filename"), "../../precious/data.bin"),
    "a chunk at a path of its own": (("chunks", 0, "filename"), "/etc/passwd"),
    "a chunk in a folder": (("chunks", 0, "filename"), "x/chunk-0-0.bin"),
    "a chunk of Windows": (("chunks", 0, "filename"), "..\\..\\precious\\data.bin"),
    "a chunk with a NUL": (("chunks", 0, "filename"), "a\0b"),
    "a chunk that is the folder": (("chunks", 0, "filename"), "."),
    "a chunk that is a number": (("chunks", 0, "filename"), 7),
    "a chunk without a name": (("chunks", 0, "filename"), ""),
    "a chunk with a name without end": (("chunks", 0, "filename"), "x" * 5000),
    "a chunk that is not there": (("chunks", 0, "filename"), "chunk-9-9.bin"),
    "a device": (("chunks", 0, "filename"), "/dev/zero"),
    "more bytes than there are": (("chunks", 0, "chunk_bytes"), 10**12),
    "fewer than no bytes": (("chunks", 0, "chunk_bytes"), -1),
    "bytes in words": (("chunks", 0, "chunk_bytes"), "many"),
    "items without end": (("chunks", 0, "chunk_size"), 10**12),
    "fewer than no items": (("chunks", 0, "chunk_size"), -5),
    "no items": (("chunks", 0, "chunk_size"), 0),
    "items in words": (("chunks", 0, "chunk_size"), "two"),
    "no chunks": (("chunks",), []),
    "chunks that are none": (("chunks",), {"a": 1}),
    "a chunk that is a text": (("chunks",), ["chunk-0-0.bin"]),
    "pickles": (("config", "data_format"), ["pickle"]),
    "a film": (("config", "data_format"), ["video"]),
    "a picture": (("config", "data_format"), ["pil"]),
    "a tensor": (("config", "data_format"), ["tensor"]),
    "an array": (("config", "data_format"), ["no_header_numpy:1"]),
    "a file": (("config", "data_format"), ["file"]),
    "a format that is none": (("config", "data_format"), ["evil.load"]),
    "no format": (("config", "data_format"), []),
    "several formats": (("config", "data_format"), ["bytes", "pickle"]),
    "a module to import": (("config", "data_spec"), SPEC),
    "a list for a text": (("config", "data_spec"), DEEP),
    "a protocol of its own": (("config", "data_spec"), "[99, {}]"),
    "a structure that is none": (("config", "data_spec"), "{"),
    "a compression": (("config", "compression"), "zstd"),
    "a compression that is none": (("config", "compression"), "evil"),
    "an encryption": (("config", "encryption"), {"algorithm": "rsa", "level": "chunk"}),
    "a loader of items": (("config", "item_loader"), "ParquetLoader"),
    "another format of sets": (("config", "format"), "mds"),
    "no settings": (("config",), None),
    "settings that are a list": (("config",), [1]),
}


@pytest.mark.parametrize("name", INDEX)
def test_an_index_that_lies_is_refused(theirs, study, name):
    way, value = INDEX[name]
    path = theirs / "index.json"
    index = json.loads(path.read_text())
    put(index, *way, value=value)
    path.write_text(json.dumps(index))
    assert "index.json" in refused(theirs, study.study_id)


# What litdata does with a set that it downloads: it writes beside the names that the index gives.
DOWNLOADED = [
    "a chunk above the set",
    "a chunk at a path of its own",
    "a module to import",
    "a film",
]


@pytest.mark.parametrize("name", DOWNLOADED)
def test_a_downloaded_index_that_lies_is_refused(theirs, study, name, tmp_path):
    way, value = INDEX[name]
    path = theirs / "index.json"
    index = json.loads(path.read_text())
    put(index, *way, value=value)
    path.write_text(json.dumps(index))
    local = tmp_path / "local"
    with watched(theirs.parent, local) as seen, pytest.raises(CmrvlmError, match=r"index\.json"):
        ShardSource(f"local://{theirs}", local=str(local))
    assert not [event for event in seen if "precious" in event or event.startswith("exec")]
    assert not (tmp_path / "marker").exists()


def test_a_downloaded_set_that_is_whole_is_read(theirs, study, tmp_path):
    source = ShardSource(f"local://{theirs}", local=str(tmp_path / "local"))
    assert list(source.load(study.study_id).series) == list(study.series)


TEXTS = {
    "nothing": b"",
    "no JSON": b"\x80\x04N.",
    "a list": b"[]",
    "a number": b"7",
    "a nest": b'{"a":' * 5000,
    "shards of another kind": json.dumps(
        {"shards": [{"zip_data": {"basename": "../x", "bytes": 1}, "samples": 1}]}
    ).encode(),
    "no text": b"\xff\xfe{}",
    "a number without end": b'{"chunks": ' + b"9" * 5000 + b"}",
}


@pytest.mark.parametrize("name", TEXTS)
def test_an_index_that_is_none_is_refused(theirs, study, name):
    (theirs / "index.json").write_bytes(TEXTS[name])
    assert "index.json" in refused(theirs, study.study_id)


@pytest.mark.parametrize("file", ["index.json", "chunk"])
@pytest.mark.parametrize("kind", ["pipe", "folder", "loop", "device", "dangling", "outside"])
def test_what_is_no_file_is_never_opened(theirs, study, file, kind):
    path = next(theirs.glob(f"{file}*"))
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        targets = {"loop": path, "device": "/dev/zero", "dangling": "x"}
        path.symlink_to(targets.get(kind, theirs.parents[1] / "precious" / "nothing"))
    refused(theirs, study.study_id)


def _cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def _offsets(*numbers: int):
    def change(content: bytes) -> bytes:
        return np.array(numbers, np.uint32).tobytes() + content[4 * len(numbers) :]

    return change


CHUNKS = {
    "half of it": _cut,
    "nothing": lambda content: b"",
    "one byte": lambda content: b"x",
    "zeros": lambda content: bytes(len(content)),
    "other bytes": lambda content: bytes([255]) * len(content),
    "an item that ends before it begins": _offsets(2, 400, 16),
    "an item behind the end": _offsets(2, 2**32 - 100, 2**32 - 1),
    "an item as large as the address space": _offsets(2, 0, 2**32 - 1),
}


@pytest.mark.parametrize("name", CHUNKS)
def test_a_chunk_that_lies_is_refused(theirs, study, name):
    chunk = next(theirs.glob("chunk*"))
    chunk.write_bytes(CHUNKS[name](chunk.read_bytes()))
    refused(theirs, study.study_id)


RECORDS = {
    "no object": [],
    "no studies": {"studies": None},
    "studies that are numbers": {"studies": [1, 2]},
    "a study without a name": {"studies": [{}]},
    "a name that is a list": {"studies": [{"study": ["a"]}]},
    "another format": {"format": 99},
    "a preprocessing that is none": {"preprocessing": 7},
}


@pytest.mark.parametrize("name", RECORDS)
def test_a_list_of_studies_that_lies_is_refused(tmp_path, study, name):
    changes = RECORDS[name]
    content = index_of(study, **changes) if changes else []
    folder = write_set(
        tmp_path / "theirs" / "set", json.dumps(content).encode(), item_of(study_files(study))
    )
    with pytest.raises(CmrvlmError) as error:
        _read_all(folder, study.study_id)
    assert str(folder) in str(error.value)


def _read_all(folder: Path, study_id: str) -> None:
    source = ShardSource(str(folder))
    source.load(study_id)
    source.labels(study_id)


def _with_meta(files: dict[str, bytes], change) -> dict[str, bytes]:
    meta = json.loads(files["study.json"])
    change(meta)
    return files | {"study.json": json.dumps(meta).encode()}


def _renamed(name: str):
    def change(meta: dict) -> None:
        meta["series"][name] = meta["series"].pop("sax")
        meta["sha256"] = {}

    return change


STUDIES = {
    "no safetensors": lambda files: b"x" * 100,
    "a pickle": lambda files: b"\x80\x04N.",
    "a header without end": lambda files: (2**62).to_bytes(8, "little") + b"{}",
    "no file": lambda files: item_of({"a": b"x"}),
    "a series above the study": lambda files: item_of(_with_meta(files, _renamed("../../x"))),
    "a series at a path": lambda files: item_of(_with_meta(files, _renamed("/etc/x"))),
    "a series of a name of its own": lambda files: item_of(_with_meta(files, _renamed("evil"))),
    "an array of objects": lambda files: item_of(
        _with_meta(files | {"sax.npy": _objects()}, lambda meta: meta.update(sha256={}))
    ),
    "an array without end": lambda files: item_of(
        _with_meta(files | {"sax.npy": _endless()}, lambda meta: meta.update(sha256={}))
    ),
    "numbers for bytes": lambda files: pack({"study.json": np.zeros(3, np.float64)}),
}


def _objects() -> bytes:
    import io

    file = io.BytesIO()
    np.save(file, np.array([{}], dtype=object), allow_pickle=True)
    return file.getvalue()


def _endless() -> bytes:
    import io

    file = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": (10**6, 10**6)}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue()


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_that_lies_is_refused(tmp_path, study, name):
    folder = write_set(
        tmp_path / "theirs" / "set",
        json.dumps(index_of(study)).encode(),
        STUDIES[name](study_files(study)),
    )
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "data.bin").write_bytes(b"x")
    refused(folder, study.study_id)
