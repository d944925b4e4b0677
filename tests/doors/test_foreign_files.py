"""Files of another person that tables, data sets and commands name: read as data, or refused, in bounded time."""

import json
import os
import shutil
import signal
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pydicom
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, RLELossless

from cmrvlm.compare import compare
from cmrvlm.errors import CmrvlmError
from cmrvlm.study.files import read_study, write_nifti
from data_modules.dicom.scan import scan
from data_modules.sources.manifest import ManifestSource
from data_modules.tables.read_table import read_table
from data_modules.tables.text_files import read_text
from tests.data_modules.dicom.archive import base_dataset, set_pixels
from tests.watch import watched


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Fail where something waits or works without end."""

    def late(*unused):
        raise AssertionError("it takes without end")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def write_image(path: Path) -> None:
    image = np.random.default_rng(0).normal(size=(3, 2, 8, 8)).astype(np.float32)
    write_nifti(path, image, np.diag([8.0, 8.0, 8.0, 1.0]))


@pytest.fixture
def theirs(tmp_path, monkeypatch):
    folder = tmp_path / "theirs"
    folder.mkdir()
    write_image(folder / "a.nii.gz")
    write_image(tmp_path / "outside.nii.gz")
    (tmp_path / "secret.txt").write_text("key: 1")
    monkeypatch.chdir(folder)
    os.mkfifo(folder / "pipe.nii.gz")
    os.mkfifo(folder / "pipe.txt")
    (folder / "loop.nii.gz").symlink_to(folder / "loop.nii.gz")
    (folder / "zero.nii.gz").symlink_to("/dev/zero")
    (folder / "zero.txt").symlink_to("/dev/zero")
    (folder / "loop.txt").symlink_to(folder / "loop.txt")
    (folder / "folder.txt").mkdir()
    return folder


# What a table names as an image.
IMAGES = {
    "a pipe": "pipe.nii.gz",
    "a device": "/dev/zero",
    "a linked device": "zero.nii.gz",
    "random numbers": "/dev/urandom",
    "the keyboard": "/dev/stdin",
    "the terminal": "/dev/tty",
    "an open file": "/proc/self/fd/0",
    "memory": "/proc/self/mem",
    "the environment": "/proc/self/environ",
    "passwords": "/etc/passwd",
    "a text above": "../secret.txt",
    "a loop": "loop.nii.gz",
    "a folder": "../theirs",
    "the root": "/",
    "a share": "\\\\server\\share\\a.nii.gz",
    "a drive": "C:\\a.nii.gz",
    "an address": "http://localhost/a.nii.gz",
    "a file's address": "file:///etc/passwd",
    "an object store": "s3://bucket/a.nii.gz",
    "a home": "~/a.nii.gz",
    "a variable": "$HOME/a.nii.gz",
    "an interpolation": "${oc.env:HOME}/a.nii.gz",
    "an override": "${oc.decode:'{_target_: os.mkdir}'}",
    "a command": "|touch marker",
    "a shell": "$(touch marker).nii.gz",
    "a name without end": "x" * 5000 + ".nii.gz",
    "a member of an archive": "a.zip!/a.nii.gz",
}


@pytest.mark.parametrize("column", ["sax", "sax_mask"])
@pytest.mark.parametrize("name", IMAGES)
def test_what_a_table_names_is_read_as_an_image_or_refused(theirs, name, column):
    row = {"study_id": "s", "sax": "a.nii.gz", column: IMAGES[name]}
    (theirs / "t.jsonl").write_text(json.dumps(row))
    with watched(theirs) as seen, time_limit(5), pytest.raises(CmrvlmError) as error:
        ManifestSource(str(theirs / "t.jsonl")).load("s")
    assert seen == []
    assert len(str(error.value)) < 1000
    assert "key: 1" not in str(error.value)
    assert not (theirs / "marker").exists()


@pytest.mark.parametrize("way", ["relative", "absolute", "link"])
def test_an_image_elsewhere_is_read_and_nothing_written_beside_it(theirs, way):
    """Tables name images where they lie, often on another disk."""
    outside = theirs.parent / "outside.nii.gz"
    names = {"relative": "../outside.nii.gz", "absolute": str(outside), "link": "link.nii.gz"}
    (theirs / "link.nii.gz").symlink_to(outside)
    (theirs / "t.jsonl").write_text(json.dumps({"study_id": "s", "sax": names[way]}))
    before = sorted(theirs.parent.iterdir())
    with watched(theirs) as seen:
        assert ManifestSource(str(theirs / "t.jsonl")).load("s").series["sax"].image.size
    assert seen == []
    assert sorted(theirs.parent.iterdir()) == before


@pytest.mark.parametrize("name", ["pipe.txt", "zero.txt", "loop.txt", "folder.txt", "none.txt"])
def test_a_text_that_is_no_file_is_never_opened(theirs, name):
    for read in (read_text, read_table):
        with time_limit(5), pytest.raises(CmrvlmError):
            read(theirs / name)


HALVES = ["a\udc00b", "a\0b", "a\x1b[2Jb"]


@pytest.mark.parametrize("text", HALVES, ids=ascii)
@pytest.mark.parametrize("key", ["patient_id", "labels", "study_id"])
def test_a_study_that_states_what_no_text_holds_is_refused(theirs, text, key):
    folder = theirs / "s"
    folder.mkdir()
    shutil.copy(theirs / "a.nii.gz", folder / "sax.nii.gz")
    value = {"report": {"en": {"findings": text}}} if key == "labels" else text
    (folder / "study.json").write_text(json.dumps({key: value}))
    with pytest.raises(CmrvlmError, match=r"study\.json"):
        read_study(folder)


def dicom(path: Path, syntax=None, **tags) -> Path:
    image = base_dataset(**tags)
    set_pixels(image, 7)
    if syntax is not None:
        image.file_meta.TransferSyntaxUID = syntax
    image.save_as(path)
    return path


def test_a_deflated_file_is_not_unpacked(theirs, monkeypatch):
    """A megabyte of it can hold a gigabyte."""
    path = dicom(theirs / "a.dcm", DeflatedExplicitVRLittleEndian)
    whole = path.read_bytes()

    def unpack(*unused, **also):
        raise AssertionError("it is unpacked")

    monkeypatch.setattr(zlib, "decompress", unpack)
    monkeypatch.setattr(zlib, "decompressobj", unpack)
    (found,) = scan([path])
    assert found.reason == "deflated file, which has to be unpacked first"
    assert path.read_bytes() == whole


@pytest.mark.parametrize("claim", [{"Rows": 65535, "Columns": 65535}, {"NumberOfFrames": 10**9}])
def test_pixels_that_would_fill_the_memory_are_left_out(theirs, claim):
    path = dicom(theirs / "a.dcm")
    image = pydicom.dcmread(path)
    image.file_meta.TransferSyntaxUID = RLELossless
    image.PixelData = pydicom.encaps.encapsulate([b"\0" * 64])
    image["PixelData"].VR = "OB"
    image["PixelData"].is_undefined_length = True
    for name, value in claim.items():
        setattr(image, name, value)
    image.save_as(path)
    (found,) = scan([path])
    assert found.reason == "pixels that would fill the memory"


BEGINNINGS = [
    b"PK\x03\x04",
    b"\x1f\x8b\x08",
    b"7z\xbc\xaf\x27\x1c",
    b"Rar!\x1a\x07",
    b"BZh9",
    b"\xfd7zXZ\0",
    b"\x28\xb5\x2f\xfd",
    b"x" * 257 + b"ustar\0",
    b"#!/bin/sh\ntouch marker\n",
    b"\x80\x04N.",
    b"MZ",
    b"\x7fELF",
]


@pytest.mark.parametrize("beginning", BEGINNINGS, ids=ascii)
def test_an_archive_in_an_archive_is_named_and_not_unpacked(theirs, beginning):
    path = theirs / "a.dcm"
    path.write_bytes(beginning + bytes(2000))
    with watched(theirs) as seen, time_limit(5):
        (found,) = scan([path])
    assert seen == []
    assert "archive" in found.reason or found.reason == "no DICOM file"


ROW = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 2, "undefined": 0}


def write_evaluation(folder: Path, content: object, columns=("a.b",), metadata=True) -> Path:
    folder.mkdir()
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / "metrics.json").write_text(text)
    table = pa.table({name: [0.1, 0.2] for name in columns})
    if metadata:
        table = table.replace_schema_metadata({"patients": "x"})
    pq.write_table(table, folder / "replicates.parquet")
    return folder


GOOD = {"settings": {}, "tasks": {"a": {"b": ROW}}}
EVALUATIONS = {
    "no JSON": "{",
    "a list": [],
    "a nest": '{"a":' * 5000,
    "nothing": {},
    "no settings": {"tasks": {}},
    "settings that are a number": {"settings": 7, "tasks": {}},
    "tasks that are a list": {"settings": {}, "tasks": [1]},
    "metrics that are a text": {"settings": {}, "tasks": {"a": "b"}},
    "a score that is a text": {"settings": {}, "tasks": {"a": {"b": ROW | {"value": "[/red]"}}}},
    "a score that is a list": {"settings": {}, "tasks": {"a": {"b": ROW | {"low": [1]}}}},
    "a score without an end": {"settings": {}, "tasks": {"a": {"b": {"value": 1}}}},
    "a score without values": {"settings": {}, "tasks": {"a": {"c": ROW}}},
}


@pytest.mark.parametrize("name", EVALUATIONS)
def test_an_evaluation_that_is_none_is_refused_by_name(tmp_path, name):
    bad = write_evaluation(tmp_path / "bad", EVALUATIONS[name])
    good = write_evaluation(tmp_path / "good", GOOD)
    for pair in ([bad, good], [good, bad]):
        with time_limit(5), pytest.raises(CmrvlmError, match="bad"):
            compare(pair)
    _, rows = compare([good, good])
    assert rows[0][:2] == ("a", "b")


@pytest.mark.parametrize("kind", ["pipe", "device", "text", "no patients", "folder"])
def test_resampled_values_that_are_none_are_refused_by_name(tmp_path, kind):
    bad = write_evaluation(tmp_path / "bad", GOOD, metadata=kind != "no patients")
    path = bad / "replicates.parquet"
    if kind != "no patients":
        path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "text":
        path.write_text("x" * 100)
    elif kind == "folder":
        path.mkdir()
    with time_limit(5), pytest.raises(CmrvlmError, match="bad"):
        compare([bad, bad])
