"""The cache when studies, disks, other jobs or signals get in its way."""

import csv
import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading

import pytest

import data_modules.storage.cache
from cmrvlm.errors import CmrvlmError
from data_modules.sources.phantom.source import PhantomSource
from data_modules.storage.cache import StudyCache
from data_modules.storage.in_use import LOCK_FILE, Hold
from tests.conftest import ROOT
from tests.data_modules.conftest import TINY


def raising(error, broken):
    """Return a source some of whose studies raise an error."""

    class Broken(PhantomSource):
        def load(self, study_id):
            if int(study_id[-5:]) in broken:
                raise error
            return super().load(study_id)

    return Broken(count=8, **TINY)


def leftovers(cache):
    return [path.name for path in cache.folder.glob(".writing-*")]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (CmrvlmError("it is truncated", file="/archive/Miller/sax.nii.gz"), "sax.nii.gz: it is tr"),
        (ValueError("array of /archive/Miller"), "cannot be read (ValueError)"),
        (OSError(errno.EIO, "I/O error", "/archive/Miller"), "cannot be read (OSError)"),
        (MemoryError(), "cannot be read (MemoryError)"),
    ],
)
def test_all_broken_studies_are_listed_and_the_others_kept(tmp_path, scaling, error, reason):
    source = raising(error, broken={1, 4, 5})
    with pytest.raises(CmrvlmError, match=r"3 of 8 studies.*failures\.csv") as caught:
        StudyCache(tmp_path, source, scaling()).fill(source.study_ids(), allowed_failures=2)
    assert "Miller" not in str(caught.value)
    cache = StudyCache(tmp_path, source, scaling())
    with (cache.folder / "failures.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["study"][-1] for row in rows] == ["1", "4", "5"]
    assert all(reason in row["reason"] for row in rows)
    assert not any("Miller" in row["reason"] for row in rows)
    assert len(list(cache.folder.glob("phantom-*"))) == 5
    assert len(cache.fill(source.study_ids(), allowed_failures=3)) == 3


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_no_more_studies_are_in_memory_than_workers(tmp_path, scaling, workers):
    under_way, most = set(), []
    lock = threading.Lock()

    class Counting(PhantomSource):
        def load(self, study_id):
            with lock:
                under_way.add(threading.get_ident())
                most.append(len(under_way))
            return super().load(study_id)

    source = Counting(count=12, **TINY)
    StudyCache(tmp_path, source, scaling(), workers).fill(source.study_ids())
    assert max(most) <= workers


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS])
@pytest.mark.parametrize("after", [0, 1, 9])
def test_a_full_disk_is_an_error_in_one_line(tmp_path, scaling, monkeypatch, code, after):
    source = PhantomSource(count=6, **TINY)
    written = []

    def fill_disk(files, folder):
        for name, content in files.items():
            (folder / name).write_bytes(content[:7] if len(written) == after else content)
            written.append(name)
            if len(written) > after:
                raise OSError(code, os.strerror(code), str(folder / name))

    cache = StudyCache(tmp_path, source, scaling(), workers=2)
    with monkeypatch.context() as patch:
        patch.setattr(data_modules.storage.cache, "save_files", fill_disk)
        with pytest.raises(CmrvlmError, match=r"studies are still to be written, about .* GB") as e:
            cache.fill(source.study_ids())
    assert str(cache.folder) in str(e.value)
    assert os.strerror(code) in str(e.value)
    assert leftovers(cache) == []
    assert cache.fill(source.study_ids()) == {}
    for study_id in source.study_ids():
        assert cache.load(study_id).series["sax"].image.shape == (2, 3, 32, 32)


# Runs as somebody who may only read, for whoever runs the tests as root.
READER = """
    import os, sys
    from data_modules.sources.phantom.source import PhantomSource
    from data_modules.storage.cache import StudyCache
    from cmrvlm.transforms.preprocessing import Preprocessing
    from cmrvlm.errors import CmrvlmError

    source = PhantomSource(count=int(sys.argv[2]), size=32, slices=2, frames=3)
    cache = StudyCache(__import__("pathlib").Path(sys.argv[1]), source, Preprocessing({}))
    if len(sys.argv) > 3 and os.getuid() == 0:
        os.setuid(65534)
    try:
        cache.fill(source.study_ids())
    except CmrvlmError as error:
        print(error)
        sys.exit(1)
    print(len([cache.load(name).series["sax"].image.sum() for name in source.study_ids()]), "read")
"""


def start(program, *arguments):
    """Start a Python program in the project's folder."""
    command = [sys.executable, "-c", textwrap.dedent(program), *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.slow
def test_a_cache_that_may_only_be_read_is_used_while_it_is_complete(tmp_path):
    root = tmp_path / "cache"
    assert "3 read" in start(READER, root, 3).communicate()[0]
    # Others must reach the folder, however deep the test's own one lies.
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.getuid() and not folder.stat().st_mode & 0o001:
            folder.chmod(0o755)
    entry = next(root.iterdir())
    for folder in (root, entry):
        folder.chmod(0o555)
    assert "3 read" in start(READER, root, 3, "only").communicate()[0]
    # A source of more studies has an entry of its own.
    out, error = start(READER, root, 4, "only").communicate()
    assert "the cache cannot be written (Permission denied); 4 studies" in out
    assert "Traceback" not in error
    next(path for path in entry.iterdir() if path.is_dir()).rename(tmp_path / "away")
    out, error = start(READER, root, 3, "only").communicate()
    assert "the cache cannot be written (Permission denied); 1 studies" in out
    assert "Traceback" not in error
    entry.chmod(0o444)
    out, error = start(READER, root, 3, "only").communicate()
    assert "the cache cannot be read (Permission denied)" in out
    assert "Traceback" not in error


@pytest.mark.slow
def test_two_jobs_fill_one_empty_cache_at_once(tmp_path):
    jobs = [start(READER, tmp_path, 12) for _ in range(3)]
    results = [job.communicate(timeout=120) for job in jobs]
    assert {job.returncode for job in jobs} == {0}, results
    assert all("12 read" in out for out, _ in results)
    (entry,) = tmp_path.iterdir()
    assert len([path for path in entry.iterdir() if path.is_dir()]) == 12


SLOW_WRITER = """
    import sys, time
    from pathlib import Path
    from data_modules.sources.phantom.source import PhantomSource
    import data_modules.storage.cache as cache
    from cmrvlm.transforms.preprocessing import Preprocessing

    save = cache.save_files

    def save_slowly(files, folder):
        print("writing", flush=True)
        save(files, folder)
        time.sleep(0.5)

    cache.save_files = save_slowly
    source = PhantomSource(count=50, size=32, slices=2, frames=3)
    cache.StudyCache(Path(sys.argv[1]), source, Preprocessing({})).fill(source.study_ids())
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_job_that_is_stopped_ends_and_the_next_one_clears_up(tmp_path, number):
    with start(SLOW_WRITER, tmp_path) as killed:
        assert "writing" in killed.stdout.readline()
        killed.send_signal(number)
        killed.communicate(timeout=10)
    (entry,) = tmp_path.iterdir()
    if number == signal.SIGINT:
        assert not list(entry.glob(".writing-*"))
    else:
        assert len(list(entry.glob(".writing-*"))) == 1
    with start(SLOW_WRITER, tmp_path) as living:
        assert "writing" in living.stdout.readline()
        (own,) = entry.glob(".writing-*")
        # A third one leaves the folder of the living one alone.
        out, error = start(READER, tmp_path, 50).communicate(timeout=120)
        assert "50 read" in out, error
        assert own.is_dir()
        living.kill()


def test_folders_of_living_jobs_stay(tmp_path, scaling):
    source = PhantomSource(count=2, **TINY)
    cache = StudyCache(tmp_path, source, scaling())
    for name in ("dead", "alive", "young"):
        (cache.folder / f".writing-{name}").mkdir(parents=True)
    (cache.folder / ".writing-dead" / LOCK_FILE).touch()
    hold = Hold(cache.folder / ".writing-alive")
    cache.fill(source.study_ids())
    assert sorted(leftovers(cache)) == [".writing-alive", ".writing-young"]
    hold.release()


def test_the_record_of_an_entry_is_written_once(tmp_path, scaling):
    source = PhantomSource(count=2, **TINY)
    cache = StudyCache(tmp_path, source, scaling())
    cache.fill(source.study_ids()[:1])
    record = cache.folder / "entry.json"
    content = json.loads(record.read_text())
    os.utime(record, (1, 1))
    cache.fill(source.study_ids())
    assert record.stat().st_mtime == 1
    assert content["source"] == "PhantomSource"
