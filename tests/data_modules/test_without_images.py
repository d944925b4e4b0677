"""Labels, strata, sequences and splits of a set are read without decoding an image."""

import numpy as np
import pytest

from cmrvlm.study.files import write_study
from cmrvlm.transforms.preprocessing import Preprocessing
from data_modules.sources.manifest import ManifestSource
from data_modules.sources.nifti import NiftiSource
from data_modules.sources.phantom.source import PhantomSource
from data_modules.storage.shard_writer import ShardWriter
from data_modules.storage.shards import ShardSource
from data_modules.study_data_module import StudyDataModule
from tests.data_modules.conftest import TINY

COUNT = 8


def phantoms(folder):
    return PhantomSource(count=COUNT, **TINY)


def nifti(folder):
    source = phantoms(folder)
    for study_id in source.study_ids():
        write_study(source.load(study_id), folder / "nifti" / study_id)
    return NiftiSource(str(folder / "nifti"))


def manifest(folder):
    names = nifti(folder).study_ids()
    rows = [f"{name},nifti/{name}/sax.nii.gz,DCM" for name in names]
    (folder / "studies.csv").write_text("\n".join(["study_id,sax,diseases", *rows]))
    return ManifestSource(str(folder / "studies.csv"))


def shards(folder):
    pytest.importorskip("litdata")
    source = phantoms(folder)
    ShardWriter(source, Preprocessing({}), str(folder / "set"), str(folder / "cache")).write()
    return ShardSource(str(folder / "set"))


@pytest.mark.parametrize("make", [phantoms, nifti, manifest, shards])
def test_nothing_but_a_sample_decodes_images(tmp_path, monkeypatch, untrained, make):
    def module():
        return StudyDataModule(
            make_once,
            Preprocessing({}),
            untrained.data.mixture,
            str(tmp_path / "cache"),
            shares={"test": 0.25},
            batch_size=2,
            sequences=["sax"],
        )

    make_once = make(tmp_path)
    module().prepare_data()

    def refuse(*arguments, **settings):
        raise AssertionError("an image was decoded")

    for name in ("load", "memmap", "frombuffer"):
        monkeypatch.setattr(np, name, refuse)
    monkeypatch.setattr(type(make_once), "load", refuse)
    data = module()
    data.collator = untrained.collator
    data.prepare_data()
    assert {part: len(members) for part, members in data.split.items()} == {
        "train": 6,
        "val": 0,
        "test": 2,
    }
    assert len(data.source.strata()) == len(data.patient_of()) == COUNT
    shares = data.class_shares()
    assert shares["disease"].isfinite().any()
    for study_id in data.split["train"]:
        assert "sax" in data.cache.sequences(study_id)
        assert data.cache.labels(study_id).diseases
    loader = data.train_dataloader()
    assert len(list(loader.sampler)) == 6
    with pytest.raises(AssertionError, match="an image was decoded"):
        next(iter(loader))
