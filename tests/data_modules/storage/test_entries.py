"""What the cache holds: what is listed, what is removed, and what is never touched."""

import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from rich.console import Console

import cmrvlm.cache
import data_modules.storage.entries
from cmrvlm.errors import CmrvlmError
from cmrvlm.transforms.intensity import PercentileIntensity
from cmrvlm.transforms.preprocessing import Preprocessing
from data_modules.sources.phantom.source import PhantomSource
from data_modules.storage.cache import ENTRY_FILE, StudyCache
from data_modules.storage.entries import CacheFolder
from data_modules.storage.in_use import Hold, unused
from tests.conftest import ROOT, composed

DAY = 86_400


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A cache folder with one entry of three studies, to copy."""

    root = tmp_path_factory.mktemp("filled")
    source = PhantomSource(count=3, size=32, slices=2, frames=3)
    cache = StudyCache(root, source, Preprocessing({"scale": PercentileIntensity()}))
    cache.fill(source.study_ids())
    return root


@pytest.fixture
def root(filled, tmp_path):
    """The cache folder, in a folder with other things."""
    shutil.copytree(filled, tmp_path / "cache")
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("x")
    return tmp_path / "cache"


def entry_of(root):
    (folder,) = [path for path in root.iterdir() if len(path.name) == 16]
    return folder


def studies_of(root):
    return sorted(path for path in entry_of(root).iterdir() if path.is_dir())


def age(path, days):
    at = time.time() - days * DAY
    os.utime(path, (at, at))


def tree(folder):
    return sorted(str(path) for path in folder.rglob("*"))


def run(root, *overrides):
    """Run the command, and return what it prints."""
    console = Console(width=200, file=io.StringIO())
    cmrvlm.cache.cache(composed(f"paths.cache={root}", *overrides, name="cache"), console)
    return console.file.getvalue()


def test_entries_are_listed_with_source_size_and_last_use(root):
    for days, study in enumerate(studies_of(root), start=2):
        age(study, days)
    (entry,) = CacheFolder(str(root)).entries()
    assert entry.folder == entry_of(root)
    assert entry.source == "PhantomSource"
    assert entry.steps == ("layout", "scale")
    assert entry.is_current
    sizes = [path.stat().st_size for path in entry.folder.rglob("*") if path.is_file()]
    assert entry.size_bytes == sum(sizes) - (entry.folder / ENTRY_FILE).stat().st_size
    assert not entry.is_in_use
    assert time.time() - entry.used_at == pytest.approx(2 * DAY, abs=60)
    assert not entry.unused


@pytest.mark.parametrize(("days", "left"), [(30, 3), (8, 2), (3.5, 1), (1, 0)])
def test_studies_that_were_not_used_for_days_are_pruned(root, days, left):
    for age_days, study in zip((2, 5, 10), studies_of(root), strict=True):
        age(study, age_days)
    CacheFolder(str(root), days).prune()
    if left:
        assert len(studies_of(root)) == left
    else:
        assert list(root.iterdir()) == []


@pytest.mark.parametrize("change", ["code", "format", "record", "json", "list"])
def test_what_other_code_made_is_pruned(root, monkeypatch, change):
    path = entry_of(root) / ENTRY_FILE
    if change == "code":
        monkeypatch.setattr(data_modules.storage.entries, "code_digest", lambda modules: "other")
    elif change == "format":
        path.write_text(path.read_text().replace('"format": "2"', '"format": "1"'))
    elif change == "record":
        path.unlink()
    else:
        path.write_text({"json": "{", "list": "[]"}[change])
    (entry,) = CacheFolder(str(root), 1000).prune()
    assert not entry.is_current
    assert list(root.iterdir()) == []


def test_nothing_but_entries_is_ever_removed(root):
    """Each neighbour differs from an entry in one respect."""
    entry = entry_of(root)
    with_more = root / "0123456789abcdef"
    shutil.copytree(entry, with_more)
    (with_more / "notes.txt").write_text("x")
    with_folder = root / "1123456789abcdef"
    shutil.copytree(entry, with_folder)
    (with_folder / "results").mkdir()
    shutil.copytree(entry, root / "my results")
    (root / "2123456789abcdef").mkdir()
    (root / "3123456789abcdef").symlink_to(root.parent / "precious")
    (root / "4123456789abcdef").write_text("x")
    elsewhere = root.parent / "5123456789abcdef"
    shutil.copytree(entry, elsewhere)
    (root / "5123456789abcdef").symlink_to(elsewhere)
    with_link = root / "6123456789abcdef"
    shutil.copytree(entry, with_link)
    (with_link / "study-0123456789ab").symlink_to(root.parent / "precious")
    shutil.rmtree(entry)
    before = tree(root.parent)
    assert CacheFolder(str(root), 0).prune() == []
    assert tree(root.parent) == before


def test_leftovers_of_killed_jobs_are_removed_and_new_ones_stay(root):
    for name, days in ((".writing-old", 2), (".writing-new", 0)):
        (entry_of(root) / name / "study").mkdir(parents=True)
        age(entry_of(root) / name, days)
    CacheFolder(str(root)).prune()
    assert not (entry_of(root) / ".writing-old").exists()
    assert (entry_of(root) / ".writing-new").exists()


def test_a_missing_folder_is_an_empty_cache_and_negative_days_are_refused(tmp_path):
    assert CacheFolder(str(tmp_path / "none")).entries() == []
    for days in (-1, "abc", "nan", "null"):
        with pytest.raises(CmrvlmError, match=r"no number of days|is not a number"):
            run(tmp_path, f"cache.unused_days={days}")


@pytest.mark.parametrize("text", ["maybe", "yes", "0", "null"])
def test_prune_is_true_or_false(root, text):
    before = tree(root)
    with pytest.raises(CmrvlmError, match="neither true nor false"):
        run(root, f"prune={text}", "cache.unused_days=0")
    assert tree(root) == before


def test_the_command_only_says_what_would_go_unless_it_is_told_to_prune(root):
    for days, study in zip((2, 50, 60), studies_of(root), strict=True):
        age(study, days)
    before = tree(root)
    text = run(root)
    assert tree(root) == before
    assert "2 unused studies" in text
    assert "prune=true would remove: 2 studies" in text
    text = run(root, "prune=true", "cache.unused_days=55")
    assert "removed: 1 studies" in text
    assert len(studies_of(root)) == 2


def test_names_of_sources_are_no_markup(root):
    record = json.loads((entry_of(root) / ENTRY_FILE).read_text())
    record["settings"] = {"root": "[/red]"}
    (entry_of(root) / ENTRY_FILE).write_text(json.dumps(record))
    assert "[/red]" in run(root)


USE = """
import sys
from pathlib import Path
from data_modules.storage.in_use import Hold
hold = Hold(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_an_entry_that_a_job_uses_stays_until_the_job_ends(root, monkeypatch):
    monkeypatch.setattr(data_modules.storage.entries, "code_digest", lambda modules: "other")
    with subprocess.Popen(
        [sys.executable, "-c", USE, str(entry_of(root))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    ) as job:
        assert job.stdout.readline() == b"held\n"
        before = tree(root)
        assert "nothing: in use" in run(root, "prune=true", "cache.unused_days=0")
        assert tree(root) == before
        job.kill()
        job.wait()
    CacheFolder(str(root)).prune()
    assert list(root.iterdir()) == []


def test_a_cache_holds_its_entry_and_copies_of_it_hold_nothing(root):
    entry = entry_of(root)
    hold = Hold(entry)
    copy = pickle.loads(pickle.dumps(hold))
    assert CacheFolder(str(root)).entries()[0].is_in_use
    del hold
    assert not CacheFolder(str(root)).entries()[0].is_in_use
    del copy


def test_a_job_that_waited_for_a_removal_holds_the_new_folder(root):
    entry = entry_of(root)
    Hold(entry)
    with ThreadPoolExecutor(1) as pool:
        with unused(entry) as is_free:
            assert is_free
            waiting = pool.submit(Hold, entry)
            time.sleep(0.1)
            shutil.rmtree(entry)
        hold = waiting.result(timeout=5)
    with unused(entry) as is_free:
        assert not is_free
    del hold
