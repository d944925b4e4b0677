"""Splits, cache, data sets and the data module."""

import json
from itertools import pairwise

import numpy as np
import pytest
import torch

from cmrvlm.errors import CmrvlmError
from cmrvlm.transforms.frames import SampleFrames
from cmrvlm.transforms.intensity import PercentileIntensity
from cmrvlm.transforms.preprocessing import Preprocessing
from data_modules.loading.dataset import EpochSampler, EvaluationSet, TrainingSet
from data_modules.sources.phantom.source import PhantomSource
from data_modules.split import check_leak, read_split, split_by_patient
from data_modules.storage.cache import StudyCache
from data_modules.study_data_module import StudyDataModule


def small_source(count=6, **changes):
    return PhantomSource(count=count, **{"size": 32, "slices": 2, "frames": 3} | changes)


def scaling(upper=99.0):
    return Preprocessing({"scale": PercentileIntensity(upper=upper)})


def test_patients_are_not_divided_and_strata_are_shared_out():
    studies = [f"s{i}" for i in range(80)]
    patients = [f"p{i // 8}" for i in range(80)]
    strata = ["sick" if i // 8 < 5 else "well" for i in range(80)]
    split = split_by_patient(studies, patients, strata, {"test": 0.2, "val": 0.2}, seed=1)
    assert sorted(s for part in split.values() for s in part) == sorted(studies)
    owners = {part: {patients[int(s[1:])] for s in members} for part, members in split.items()}
    assert not owners["train"] & owners["test"]
    assert not owners["train"] & owners["val"]
    assert not owners["val"] & owners["test"]
    for part in ("test", "val"):
        assert {strata[int(s[1:])] for s in split[part]} == {"sick", "well"}
    assert split == split_by_patient(studies, patients, strata, {"test": 0.2, "val": 0.2}, seed=1)
    assert split != split_by_patient(studies, patients, strata, {"test": 0.2, "val": 0.2}, seed=2)


def test_small_strata_together_give_the_share():
    ids = [f"s{i}" for i in range(32)]
    split = split_by_patient(
        ids, ids, [str(i % 16) for i in range(32)], {"test": 0.25, "val": 0.125}, 0
    )
    assert (len(split["test"]), len(split["val"])) == (8, 4)


def test_patient_on_two_sides_is_an_error():
    with pytest.raises(CmrvlmError, match="P03"):
        check_leak({"train": ["a"], "test": ["b"]}, {"a": "P03", "b": "P03"})
    with pytest.raises(CmrvlmError, match="'x'"):
        check_leak({"train": ["x"]}, {"a": "P03"})
    check_leak({"train": ["a", "b"], "test": ["c"]}, {"a": "P1", "b": "P1", "c": "P2"})


def test_split_file_is_read_or_refused(tmp_path):
    path = tmp_path / "split.json"
    path.write_text(json.dumps({"train": ["007", "7"]}))
    assert read_split(path) == {"train": ["007", "7"], "val": [], "test": []}
    path.write_text(json.dumps({"training": []}))
    with pytest.raises(CmrvlmError, match="training"):
        read_split(path)
    with pytest.raises(CmrvlmError, match="split file"):
        read_split(tmp_path / "none.json")


def test_cached_study_is_the_preprocessed_one(tmp_path):
    source, steps = small_source(), scaling()
    cache = StudyCache(tmp_path, source, steps)
    assert cache.fill(source.study_ids()) == {}
    one, fresh = cache.load(source.study_ids()[1]), steps(source.load(source.study_ids()[1]))
    for name, series in fresh.series.items():
        cached = one.series[name]
        assert isinstance(cached.image, np.memmap)
        np.testing.assert_allclose(cached.image, series.image, atol=1e-3)
        assert np.array_equal(cached.mask, series.mask)
        np.testing.assert_allclose(cached.affine, series.affine)
        assert (cached.phases, cached.levels, cached.frame_times_ms) == (
            series.phases,
            series.levels,
            series.frame_times_ms,
        )
    assert one.labels == fresh.labels
    assert one.synthetic


def test_everything_that_changes_the_content_changes_the_key(tmp_path):
    base = StudyCache(tmp_path, small_source(), scaling()).folder
    others = [
        StudyCache(tmp_path, small_source(seed=1), scaling()),
        StudyCache(tmp_path, small_source(slices=3), scaling()),
        StudyCache(tmp_path, small_source(), scaling(98.0)),
        StudyCache(
            tmp_path,
            small_source(),
            Preprocessing({"scale": PercentileIntensity(), "frames": SampleFrames(2)}),
        ),
    ]
    assert base == StudyCache(tmp_path, small_source(), scaling()).folder
    assert len({base, *(other.folder for other in others)}) == 5


def test_killed_writer_leaves_no_half_study(tmp_path, monkeypatch):
    source = small_source(count=1)
    cache = StudyCache(tmp_path, source, scaling())
    import data_modules.storage.cache as module

    def dies(study, folder):
        (folder / "sax.npy").write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "save_arrays", dies)
    with pytest.raises(KeyboardInterrupt):
        cache.fill(source.study_ids())
    monkeypatch.undo()
    assert not cache.path(source.study_ids()[0]).exists()
    cache.fill(source.study_ids())
    assert cache.load(source.study_ids()[0]).series["sax"].image.shape == (2, 3, 32, 32)
    cache.clear()
    assert not cache.folder.exists()


class Broken(PhantomSource):
    def load(self, study_id):
        if study_id.endswith("2"):
            raise CmrvlmError("the file is truncated", file=f"{study_id}.nii.gz")
        return super().load(study_id)


def test_broken_studies_are_named_counted_and_never_replaced(tmp_path):
    source = Broken(count=6, size=32, slices=2, frames=3)
    with pytest.raises(CmrvlmError, match=r"1 of 6 studies.*00002\.nii\.gz: the file is truncated"):
        StudyCache(tmp_path, source, scaling()).fill(source.study_ids())
    failures = StudyCache(tmp_path, source, scaling()).fill(source.study_ids(), allowed_failures=1)
    assert list(failures) == ["phantom-0-00002"]


def samples(cache, source, mixture, augment, workers, epoch=0):
    data = TrainingSet(cache, source.study_ids(), mixture, augment, seed=5)
    sampler = EpochSampler(len(data), 5, 2, lambda: (epoch, 0))
    loader = torch.utils.data.DataLoader(
        data, 2, sampler=sampler, num_workers=workers, collate_fn=list
    )
    return [
        (s.study_id, float(s.series["lge"].image.sum()), asked)
        for batch in loader
        for s, asked in batch
    ]


def test_samples_do_not_depend_on_workers_and_differ_between_epochs(tmp_path, parts):
    from cmrvlm.transforms.augment import Augment

    source = small_source(count=8)
    cache = StudyCache(tmp_path, source, scaling())
    cache.fill(source.study_ids())
    mixture = parts[0].mixture
    none, three = (samples(cache, source, mixture, Augment(), workers) for workers in (0, 3))
    assert none == three
    assert none != samples(cache, source, mixture, Augment(), 0, epoch=1)


def test_order_of_an_epoch_goes_on_where_it_stopped():
    whole = list(EpochSampler(11, 3, 2, lambda: (4, 0)))
    assert list(EpochSampler(11, 3, 2, lambda: (4, 3))) == whole[6:]
    assert list(EpochSampler(11, 3, 2, lambda: (4, 5))) == whole  # the epoch was over
    assert {index for _, index in whole} == set(range(11))
    assert list(EpochSampler(11, 3, 2, lambda: (5, 0))) != whole


def test_processes_share_an_epoch_without_overlap():
    own = [{i for _, i in EpochSampler(10, 0, 2, lambda: (0, 0), rank, 2)} for rank in (0, 1)]
    assert own[0].isdisjoint(own[1])
    assert len(own[0] | own[1]) == 10


def test_evaluation_is_the_same_every_time(parts):
    data = parts[0]
    one, two = (EvaluationSet(data.cache, data.split["val"], data.mixture)[0] for _ in range(2))
    assert one[1] == two[1]
    only = EvaluationSet(data.cache, data.split["val"], data.mixture, shown=["lge"])[0][1]
    assert {view.sequence for asked in only for view in asked.views} == {"lge"}


def module(tmp_path, parts, **changes):
    settings = {
        "source": small_source(count=16),
        "preprocessing": scaling(),
        "mixture": parts[0].mixture,
        "cache_dir": str(tmp_path),
        "shares": {"test": 0.25},
    }
    return StudyDataModule(**settings | changes)


def test_module_splits_caches_and_saves(tmp_path, parts):
    data = module(tmp_path, parts)
    data.prepare_data()
    assert len(data.split["test"]) == 4
    assert data.val_dataloader() == []
    data.save_split(tmp_path / "split.json")
    again = module(tmp_path, parts, split_file=str(tmp_path / "split.json"), seed=9)
    again.setup()
    assert again.split == data.split
    texts = list(data.corpus())
    assert any("LVEF" in text for text in texts)
    assert any("左心室" in text for text in texts)


def test_module_says_what_is_missing(tmp_path, parts):
    data = module(tmp_path, parts, batch_size=50)
    data.prepare_data()
    with pytest.raises(CmrvlmError, match=r"data\.batch_size"):
        data.train_dataloader()
    with pytest.raises(CmrvlmError, match="collator"):
        data.test_dataloader()
    with pytest.raises(CmrvlmError, match="no study"):
        module(tmp_path, parts, source=Broken(count=0)).prepare_data()


def test_batches_of_an_epoch_hold_every_study_once(parts):
    data = parts[0]
    seen = [study for batch in data.train_dataloader() for study in batch.study_ids]
    assert (
        len(seen) == len(set(seen)) == len(data.split["train"]) // data.batch_size * data.batch_size
    )
    assert all(a != b for a, b in pairwise(seen))


def test_sequences_that_the_model_does_not_read_are_never_shown(tmp_path, parts):
    source = small_source(count=16, missing={"lax_4ch": 1.0, "sax": 0.4})
    data = module(tmp_path, parts, source=source, sequences=["sax"], shares={"test": 0.5})
    data.prepare_data()
    kept = [study for members in data.split.values() for study in members]
    assert 0 < len(kept) < 16
    assert len(data.failures) == 16 - len(kept)
    assert all("none of sax" in reason for reason in data.failures.values())
    for set_ in (TrainingSet(data.cache, data.split["train"], data.mixture, None, 0, ["sax"]),):
        _, asked = set_[(0, 0)]
        assert {view.sequence for one in asked for view in one.views} == {"sax"}
