"""Ids of studies of another person: whatever they say, files lie in the folders that they belong in."""

import json
from pathlib import Path

import numpy as np
import pytest

from cmrvlm.config.build import build
from cmrvlm.errors import CmrvlmError
from cmrvlm.study.files import write_nifti
from data_modules.checking.run import CheckRun
from data_modules.sources.manifest import ManifestSource
from data_modules.storage.cache import StudyCache
from data_modules.storage.shard_writer import ShardWriter
from data_modules.storage.shards import ShardSource
from tests.conftest import composed
from tests.watch import watched

IDS = {
    "above": "../../precious",
    "far above": "../" * 40 + "etc/cron.d/x",
    "above inside": "a/../../precious",
    "a path": "/etc/x",
    "the root": "/",
    "a home": "~/.ssh/authorized_keys",
    "a variable": "$HOME/x",
    "another variable": "${oc.env:HOME}",
    "of Windows": "C:\\Windows\\x",
    "above on Windows": "..\\..\\precious",
    "a share": "\\\\server\\share\\x",
    "an address": "http://x/y",
    "a file's address": "file:///etc/passwd",
    "three dots": "...",
    "hidden": ".bashrc",
    "a device of Windows": "CON",
    "another device": "NUL.txt",
    "a stream": "a:b:$DATA",
    "a dot at the end": "a.",
    "a star": "*",
    "brackets": "[a-z]*",
    "a quote": "a'b\"c",
    "a shell": "$(touch marker)",
    "another shell": "`touch marker`;touch marker|touch marker",
    "an option": "--help",
    "a flag": "-rf",
    "an override": "hydra.run.dir=/tmp/x",
    "long": "x" * 3000,
    "long and wide": "心" * 1000,
    "composed": "\u00e9",
    "decomposed": "e\u0301",
    "turned": "a\u202eb",
    "a part of a write": ".entry.json.1.part",
    "the entry": "entry.json",
    "the place of drafts": ".writing",
    "the index": "index.json",
    "a number": "7",
    "true": "true",
    "a lock": "lock",
}
REFUSED = {
    "nothing": "",
    "blanks": "   ",
    "a dot": ".",
    "two dots": "..",
    "a NUL": "a\0b",
    "a bell": "a\x07b",
    "an escape": "a\x1b[2Jb",
    "two lines": "a\nb",
    "half a character": "a\udcffb",
}


@pytest.fixture(scope="module")
def preprocessing():
    config = composed("+debug=fast", "run_dir=here", "out=here")["transform"]["preprocessing"]
    return build(config, "transform.preprocessing")


@pytest.fixture
def place(tmp_path):
    (tmp_path / "precious").write_text("years of work")
    folder = tmp_path / "theirs"
    folder.mkdir()
    image = np.random.default_rng(0).normal(size=(3, 2, 8, 8)).astype(np.float32)
    write_nifti(folder / "a.nii.gz", image, np.diag([8.0, 8.0, 8.0, 1.0]))
    return tmp_path


def table(place: Path, *ids: str) -> ManifestSource:
    rows = [json.dumps({"study_id": name, "patient_id": name, "sax": "a.nii.gz"}) for name in ids]
    path = place / "theirs" / "t.jsonl"
    path.write_text("\n".join(rows))
    return ManifestSource(str(path))


@pytest.mark.parametrize("name", IDS)
def test_an_id_leads_nowhere(place, preprocessing, name, monkeypatch):
    monkeypatch.chdir(place / "theirs")
    source = table(place, IDS[name])
    before = {path.name for path in place.iterdir()}
    root, out = place / "cache", place / "out"
    with watched(place / "theirs", root, out) as seen:
        cache = StudyCache(root, source, preprocessing, workers=1)
        assert cache.fill(source.study_ids()) == {}
        assert cache.load_complete(IDS[name]).study_id == IDS[name]
        run = CheckRun(source, out, workers=1)
        run.finish(list(run.run()), None, "check")
    assert seen == []
    assert (place / "precious").read_text() == "years of work"
    assert {path.name for path in place.iterdir()} == before | {"cache", "out"}
    assert {path.name for path in out.iterdir()} <= {"studies", "check.html", "check.json", ".lock"}
    assert cache.path(IDS[name]).parent == cache.folder
    assert cache.path(IDS[name]).is_dir()


@pytest.mark.parametrize("name", REFUSED)
def test_an_id_that_is_no_text_is_refused(place, name):
    with pytest.raises(CmrvlmError, match=r"study_id|sax"):
        table(place, REFUSED[name])


def test_ids_that_differ_little_stay_apart(place, preprocessing):
    """File systems of Mac and Windows take some of them for the same name."""
    ids = ["a b", "a_b", "a/b", "A b", "\u00e9", "e\u0301", "a.", "a", "x" * 70, "x" * 71]
    source = table(place, *ids)
    cache = StudyCache(place / "cache", source, preprocessing, workers=1)
    cache.fill(source.study_ids())
    names = {cache.path(name).name.casefold() for name in ids}
    assert len(names) == len(ids)
    assert all(name.isascii() and len(name) < 100 for name in names)
    assert {cache.load_complete(name).study_id for name in ids} == set(ids)
    run = CheckRun(source, place / "out", workers=1)
    assert len({run.record_path(name) for name in ids}) == len(ids)


def test_all_of_them_go_into_shards_and_out_again(place, preprocessing, monkeypatch):
    pytest.importorskip("litdata")
    monkeypatch.chdir(place / "theirs")
    source = table(place, *IDS.values())
    writer = ShardWriter(source, preprocessing, str(place / "shards"), str(place / "cache"))
    with watched(place / "theirs", place / "shards", place / "cache") as seen:
        assert writer.write() == len(IDS)
    assert seen == []
    names = {path.name for path in (place / "shards").iterdir()}
    assert all(name == "index.json" or name.startswith("chunk-") for name in names)
    shards = ShardSource(str(place / "shards"))
    assert set(shards.study_ids()) == set(IDS.values())
    assert shards.load("../../precious").patient_id == "../../precious"
