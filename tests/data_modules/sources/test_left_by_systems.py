"""Files that macOS leaves beside those of data are never read, in no data set."""

import shutil

import nibabel as nib
import numpy as np
import pytest

from cmrvlm.study.file_names import without_clutter
from data_modules.sources.emidec import EmidecSource
from data_modules.sources.manifest import ManifestSource
from data_modules.sources.mnms import MnmsSource
from data_modules.sources.myops2020 import Myops2020Source
from data_modules.sources.nifti import NiftiSource

AFFINE = np.diag([4.0, 4.0, 8.0, 1.0])


def save(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(0).random((20, 18, 3)).astype(np.float32)
    nib.save(nib.Nifti1Image(values, AFFINE), path)


def mnms(root):
    save(root / "Testing" / "A1" / "A1_sa.nii.gz")
    table = root / "201014_M&Ms_Dataset_Information.csv"
    table.write_text("External code,Vendor,ED,ES\nA1,A,,\n")
    return MnmsSource(str(root))


def myops(root):
    save(root / "train25" / "myops_1_DE.nii.gz")
    return Myops2020Source(str(root))


def emidec(root):
    save(root / "Case_001" / "Images" / "Case_001.nii.gz")
    return EmidecSource(str(root))


def frames(root):
    for frame in range(3):
        save(root / "one" / "sax" / f"frame_{frame:02d}.nii.gz")
    return NiftiSource(str(root))


def listed(root):
    for frame in range(3):
        save(root / "cine" / f"frame_{frame:02d}.nii")
    (root / "table.csv").write_text("study_id,sax\none,cine\n")
    return ManifestSource(str(root / "table.csv"))


@pytest.mark.parametrize("make", [mnms, myops, emidec, frames, listed])
def test_files_of_macos_change_nothing(tmp_path, make):
    source = make(tmp_path)
    (study_id,) = source.study_ids()
    files = source.files(study_id)
    expected = source.load(study_id)
    for path in [path for path in tmp_path.rglob("*") if path.is_file()]:
        path.with_name(f"._{path.name}").write_bytes(b"\0\x05\x16\x07\0\2\0\0Mac OS X")
        path.with_name(".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    for folder in [path for path in tmp_path.iterdir() if path.is_dir()]:
        for target in (tmp_path / "__MACOSX", tmp_path / "__MACOSX" / folder.name):
            shutil.copytree(folder, target, ignore=no_data, dirs_exist_ok=True)
    source = make(tmp_path)
    assert source.study_ids() == [study_id]
    assert source.files(study_id) == files
    read = source.load(study_id)
    for name, series in expected.series.items():
        np.testing.assert_array_equal(read.series[name].image, series.image)


def no_data(_folder, names):
    return [name for name in names if name.endswith((".nii", ".gz")) and not name.startswith("._")]


def test_names_that_only_begin_with_a_dot_are_kept(tmp_path):
    names = ["b.nii", ".hidden.nii", "._b.nii", "a._b.nii", "_.nii", ".DS_Store"]
    kept = without_clutter(tmp_path / name for name in names)
    assert [path.name for path in kept] == [".hidden.nii", "_.nii", "a._b.nii", "b.nii"]
