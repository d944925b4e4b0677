"""The cache: what it holds, what its key depends on, what happens to broken studies."""

import os
import pickle

import numpy as np
import pytest

import data_modules.storage.cache
from cmrvlm.errors import CmrvlmError
from cmrvlm.study.files import write_nifti
from cmrvlm.transforms.frames import SampleFrames
from cmrvlm.transforms.intensity import PercentileIntensity
from cmrvlm.transforms.preprocessing import Preprocessing
from data_modules.sources.manifest import ManifestSource
from data_modules.storage.cache import StudyCache


def test_cached_study_is_the_preprocessed_one(tmp_path, tiny_source, scaling):
    source, preprocessing = tiny_source(), scaling()
    cache = StudyCache(tmp_path, source, preprocessing)
    assert cache.fill(source.study_ids()) == {}
    study_id = source.study_ids()[1]
    cached_study, fresh_study = cache.load(study_id), preprocessing(source.load(study_id))
    for name, fresh in fresh_study.series.items():
        cached = cached_study.series[name]
        assert isinstance(cached.image, np.memmap)
        np.testing.assert_allclose(cached.image, fresh.image, atol=1e-3)
        assert np.array_equal(cached.mask, fresh.mask)
        np.testing.assert_allclose(cached.affine, fresh.affine)
        assert cached.phases == fresh.phases
        assert cached.levels == fresh.levels
        assert cached.frame_times_ms == fresh.frame_times_ms
    assert cached_study.labels == fresh_study.labels
    assert cached_study.synthetic


def test_everything_that_changes_the_content_changes_the_key(tmp_path, tiny_source, scaling):
    sampling = Preprocessing({"scale": PercentileIntensity(), "frames": SampleFrames(2)})
    folder = StudyCache(tmp_path, tiny_source(), scaling()).folder
    others = [
        StudyCache(tmp_path, tiny_source(seed=1), scaling()),
        StudyCache(tmp_path, tiny_source(slices=3), scaling()),
        StudyCache(tmp_path, tiny_source(), scaling(98.0)),
        StudyCache(tmp_path, tiny_source(), sampling),
    ]
    assert folder == StudyCache(tmp_path, tiny_source(), scaling()).folder
    assert len({folder, *(other.folder for other in others)}) == 5


def test_killed_writer_leaves_no_half_study(tmp_path, monkeypatch, tiny_source, scaling):
    source = tiny_source(count=1)
    study_id = source.study_ids()[0]
    cache = StudyCache(tmp_path, source, scaling())

    def die_while_writing(files, folder):
        (folder / "sax.npy").write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(data_modules.storage.cache, "save_files", die_while_writing)
    with pytest.raises(KeyboardInterrupt):
        cache.fill([study_id])
    monkeypatch.undo()
    assert not cache.path(study_id).exists()
    cache.fill([study_id])
    assert cache.load(study_id).series["sax"].image.shape == (2, 3, 32, 32)


def test_broken_studies_are_named_counted_and_never_replaced(tmp_path, broken_source, scaling):
    source = broken_source()
    with pytest.raises(CmrvlmError, match=r"1 of 6 studies.*00002\.nii\.gz: the file is truncated"):
        StudyCache(tmp_path, source, scaling()).fill(source.study_ids())
    failures = StudyCache(tmp_path, source, scaling()).fill(source.study_ids(), allowed_failures=1)
    assert list(failures) == ["phantom-0-00002"]


@pytest.fixture
def listed(tmp_path):
    """Return a function that makes the cache of a table with some rows, and the table."""
    image = np.random.default_rng(0).random((2, 3, 6, 8)).astype(np.float32)
    for name in ("a", "b", "c"):
        write_nifti(tmp_path / f"{name}.nii.gz", image, np.diag([20.0, 20.0, 10.0, 1.0]))
    table = tmp_path / "studies.csv"

    def make(*rows):
        lines = [f"{name},{name}.nii.gz,{weight}" for name, weight in rows]
        table.write_text("\n".join(["study_id,sax,weight_kg", *lines]))
        return StudyCache(tmp_path / "cache", ManifestSource(str(table)), Preprocessing({}))

    return make


def folders(cache):
    return sorted(path.name for path in cache.folder.iterdir() if path.is_dir())


def test_other_rows_and_a_saved_table_make_no_study_anew(listed):
    first = listed(("a", 60), ("b", 70))
    first.fill(["a", "b"])
    before = folders(first)
    assert len(before) == 2
    more = listed(("c", 80), ("b", 70), ("a", 60))
    more.fill(["a", "b"])
    assert more.folder == first.folder
    assert folders(more) == before
    changed = listed(("a", 61), ("b", 70))
    changed.fill(["a", "b"])
    assert len(folders(changed)) == 3
    assert changed.labels("a").demographics == {"weight_kg": 61.0}


def test_a_running_job_keeps_what_it_began_with(listed):
    cache = listed(("a", 60), ("b", 70))
    cache.fill(["a", "b"])
    table = cache.source.path
    worker = pickle.loads(pickle.dumps(cache))
    for change in (
        table.touch,
        lambda: listed(("a", 99), ("c", 1)),
        table.unlink,
        lambda: os.utime(table.with_name("a.nii.gz"), (1, 1)),
        table.with_name("a.nii.gz").unlink,
    ):
        change()
        for running in (cache, worker):
            assert running.labels("a").demographics == {"weight_kg": 60.0}
            assert running.load("a").series["sax"].image.shape == (2, 3, 6, 8)


@pytest.mark.parametrize("name", ["gone.nii.gz", "x" * 300, "a.nii.gz/x"])
def test_a_study_whose_file_is_gone_is_a_failure_of_that_study(tmp_path, listed, name):
    listed(("a", 60))
    table = tmp_path / "studies.csv"
    table.write_text(f"study_id,sax\na,a.nii.gz\nb,{name}\n")
    cache = StudyCache(tmp_path / "cache", ManifestSource(str(table)), Preprocessing({}))
    failures = cache.fill(["a", "b"], allowed_failures=1)
    assert list(failures) == ["b"]
    assert "no such file" in failures["b"]
    assert "row 3" in failures["b"]


def test_a_study_that_is_read_is_marked_as_used(listed):
    cache = listed(("a", 60), ("b", 70))
    cache.fill(["a", "b"])
    for name in ("a", "b"):
        os.utime(cache.path(name), (1, 1))
    listed(("a", 60), ("b", 70)).load("a")
    assert cache.path("a").stat().st_mtime > 1
    assert cache.path("b").stat().st_mtime == 1
    listed(("a", 60), ("b", 70)).fill(["b"])
    assert cache.path("b").stat().st_mtime > 1


def _cut(path):
    path.write_bytes(path.read_bytes()[:-7])


def _flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x20
    path.write_bytes(bytes(content))


def _zeros(path):
    path.write_bytes(path.read_bytes()[:200] + bytes(path.stat().st_size - 200))


DAMAGE = {
    "cut": _cut,
    "flipped": _flip,
    "zeros": _zeros,
    "gone": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "pickle": lambda path: path.write_bytes(b"\x80\x04N."),
    "a list": lambda path: path.write_text("[]"),
}


@pytest.mark.parametrize("file", ["sax.npy", "sax_mask.npy", "study.json"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_study_is_made_anew(source, tmp_path, damage, file):
    preprocessing = Preprocessing({"frames": SampleFrames(2)})
    study_id = source.study_ids()[0]
    cache = StudyCache(tmp_path, source, preprocessing)
    cache.fill([study_id])
    whole = cache.load(study_id)
    expected = {name: series.image.copy() for name, series in whole.series.items()}
    DAMAGE[damage](cache.path(study_id) / file)

    again = StudyCache(tmp_path, source, preprocessing)
    again.fill([study_id])
    made = again.load(study_id)
    for name, image in expected.items():
        np.testing.assert_array_equal(made.series[name].image, image)
    assert made.labels == whole.labels
    assert not list(again.folder.glob(".writing-*"))
