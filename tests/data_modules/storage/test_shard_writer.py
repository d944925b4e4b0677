"""Writing shards: what is done again after a stop, broken studies, full disks."""

import errno
import os

import pytest

import data_modules.storage.shard_writer as module
from cmrvlm.errors import CmrvlmError
from data_modules.sources.phantom.source import PhantomSource
from data_modules.storage.cache import StudyCache
from data_modules.storage.shard_writer import ShardWriter
from data_modules.storage.shards import ShardSource
from tests.data_modules.conftest import TINY

pytest.importorskip("litdata")


@pytest.fixture
def writer(tmp_path, scaling, monkeypatch):
    """Return a function that makes a writer of eight phantoms in blocks of three."""
    monkeypatch.setattr(module, "_BLOCK", 3)

    def make(source=None, **settings):
        source = source or PhantomSource(count=8, **TINY)
        return ShardWriter(
            source, scaling(), str(tmp_path / "set"), str(tmp_path / "cache"), **settings
        )

    return make


def check_set(folder, writer):
    """The set holds the studies of the cache byte for byte, and nothing else lies there."""
    shards = ShardSource(str(folder))
    cache = StudyCache(folder.parent / "cache", writer.source, writer.preprocessing)
    for study_id in shards.study_ids():
        assert shards.contents(study_id) == cache.contents(study_id)
        assert shards.labels(study_id) == cache.labels(study_id)
    assert all(path.suffix in (".bin", ".json") for path in folder.iterdir())
    return shards.study_ids()


def stopping(monkeypatch, calls, error):
    """Make the reading of a study raise an error after some calls."""
    read = []
    contents = StudyCache.contents

    def stop(cache, study_id):
        read.append(study_id)
        if len(read) == calls:
            raise error
        return contents(cache, study_id)

    monkeypatch.setattr(StudyCache, "contents", stop)
    return read


@pytest.mark.parametrize(("calls", "again"), [(1, 8), (3, 8), (5, 5), (8, 2)])
def test_a_stopped_writer_goes_on_with_its_block(tmp_path, writer, monkeypatch, calls, again):
    with monkeypatch.context() as patch:
        stopping(patch, calls, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            writer().write()
    assert not (tmp_path / "set" / "index.json").exists()
    with monkeypatch.context() as patch:
        read = stopping(patch, 0, None)
        assert writer().write() == 8
    assert len(read) == again
    assert len(check_set(tmp_path / "set", writer())) == 8


def test_other_studies_are_not_mixed_with_what_a_stopped_writer_left(tmp_path, writer, monkeypatch):
    moved = []
    replace = os.replace

    def stop(source, target):
        if str(target).endswith(".bin"):
            moved.append(target)
            if len(moved) == 3:
                raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(module.os, "replace", stop)
        with pytest.raises(KeyboardInterrupt):
            writer(chunk_bytes="30KB").write()
    other = writer(PhantomSource(count=7, seed=5, **TINY), chunk_bytes="30KB")
    assert other.write() == 7
    assert len(check_set(tmp_path / "set", other)) == 7


@pytest.mark.parametrize("calls", [3, 6, 8])
def test_a_full_disk_is_named_with_the_space_needed(tmp_path, writer, monkeypatch, calls):
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with monkeypatch.context() as patch:
        stopping(patch, calls, error)
        with pytest.raises(CmrvlmError, match=r"set.*No space left.*8 studies take about .* GB"):
            writer().write()
    assert writer().write() == 8
    check_set(tmp_path / "set", writer())


def test_broken_studies_are_left_out_as_far_as_they_are_allowed(tmp_path, writer, broken_source):
    with pytest.raises(CmrvlmError, match=r"1 of 6 studies.*failures\.csv"):
        writer(broken_source()).write()
    allowed = writer(broken_source(), allowed_failures=1)
    assert allowed.write() == 5
    assert "phantom-0-00002" not in check_set(tmp_path / "set", allowed)
    with pytest.raises(CmrvlmError, match="shards already"):
        allowed.write()
