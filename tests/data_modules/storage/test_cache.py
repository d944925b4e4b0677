"""The cache: what it holds, what its key depends on, what happens to broken studies."""

import numpy as np
import pytest

import data_modules.storage.cache
from cmrvlm.errors import CmrvlmError
from cmrvlm.transforms.frames import SampleFrames
from cmrvlm.transforms.intensity import PercentileIntensity
from cmrvlm.transforms.preprocessing import Preprocessing
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

    def die_while_writing(study, folder):
        (folder / "sax.npy").write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(data_modules.storage.cache, "save_arrays", die_while_writing)
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
