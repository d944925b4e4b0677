"""One reader for every layout of axes: what is slices, what is time, and how far apart they are."""

import logging

import nibabel as nib
import numpy as np
import pytest

from cmrvlm.errors import CmrvlmError
from cmrvlm.study.files import image_files, read_study, write_mask, write_nifti
from cmrvlm.study.reading_settings import ReadingSettings
from cmrvlm.study.series_files import read_series
from data_modules.sources.manifest import ManifestSource
from data_modules.sources.nifti import NiftiSource

SLICE = np.diag([4.0, 5.0, 8.0, 1.0])
TIMES = ReadingSettings(third_axis="t")


@pytest.fixture(scope="module")
def beating():
    """Return a heart (x, y, z, t): slices differ, frames hardly do and end where they began."""
    rng = np.random.default_rng(0)
    slices = rng.integers(100, 900, (20, 18, 6, 1))
    beat = 30 * np.sin(np.linspace(0, 2 * np.pi, 12))
    return (slices + beat + rng.integers(0, 9, (20, 18, 6, 12))).astype(np.float32)


def save(path, data, affine=SLICE, change=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(data, affine)
    if change:
        change(image)
    nib.save(image, path)
    return path


def by_every_reader(folder, **settings):
    """Read the cine of `<folder>/one` by the three readers, and return its image from each."""
    path = next(path for path in (folder / "one").iterdir() if path.name.startswith("sax"))
    (folder / "table.csv").write_text(f"study_id,sax\none,one/{path.name}\n")
    readers = (
        lambda: NiftiSource(str(folder), **settings).load("one"),
        lambda: ManifestSource(str(folder / "table.csv"), **settings).load("one"),
        lambda: read_study(folder / "one", settings=ReadingSettings(**settings)),
    )
    outcomes = []
    for read in readers:
        try:
            outcomes.append(read().series["sax"])
        except CmrvlmError as error:
            outcomes.append(str(error))
    return outcomes


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("axes", ["xyzt", "xyzt1", "xyz1t", "xy1t", "xyz", "xy", "frames"])
def test_every_reader_reads_every_layout_alike(tmp_path, beating, axes, ending):
    stored = {
        "xyzt": beating,
        "xyzt1": beating[..., None],
        "xyz1t": beating[:, :, :, None],
        "xy1t": beating[:, :, :1],
        "xyz": beating[..., 0],
        "xy": beating[:, :, 0, 0],
    }
    if axes == "frames":
        for frame in range(12):
            path = tmp_path / "one" / "sax" / f"phase{frame}{ending}"
            save(path, beating[..., frame])
        truth = beating
    else:
        save(tmp_path / "one" / f"sax{ending}", stored[axes])
        truth = {"xy1t": beating[:, :, :1], "xyz": beating[..., :1]}.get(axes, beating)
        truth = beating[:, :, :1, :1] if axes == "xy" else truth
    for series in by_every_reader(tmp_path):
        assert (series.image == truth.transpose(2, 3, 1, 0)).all()
        assert series.spacing_mm == pytest.approx((8, 5, 4))


def zero_column(affine):
    affine[:3, 2] = 0


def column(length):
    def change(affine):
        affine[2, 2] = length

    return change


TIME_AXES = {"no column": zero_column, "seconds": column(0.033), "milliseconds": column(42.0)}


@pytest.mark.parametrize("kind", TIME_AXES)
def test_a_column_that_is_no_step_between_slices_is_time(tmp_path, beating, kind):
    affine = SLICE.copy()
    TIME_AXES[kind](affine)
    image = nib.Nifti1Image(beating[:, :, 0], None)
    image.set_sform(affine, code=1, update_affine=False)
    image.header["pixdim"][1:4] = np.linalg.norm(affine[:3, :3], axis=0)
    (tmp_path / "one").mkdir()
    nib.save(image, tmp_path / "one" / "sax.nii.gz")
    for series in by_every_reader(tmp_path):
        assert (series.image[0] == beating[:, :, 0].transpose(2, 1, 0)).all()
        assert abs(np.linalg.det(series.affine)) > 1


@pytest.mark.parametrize("step_mm", [1.0, 8.0, 10.0, 25.0])
def test_frames_with_the_affine_of_slices_need_the_user(tmp_path, beating, step_mm):
    affine = np.diag([4.0, 5.0, step_mm, 1.0])
    save(tmp_path / "one" / "sax.nii.gz", beating[:, :, 0], affine)
    for outcome in by_every_reader(tmp_path):
        assert "sax.nii.gz, field 'third_axis'" in outcome
        assert "slices or frames" in outcome
    for series in by_every_reader(tmp_path, third_axis="t"):
        assert series.image.shape == (1, 12, 18, 20)


def test_the_header_and_study_json_tell_time(tmp_path, beating):
    def as_time(image):
        image.header["intent_code"] = 2001

    save(tmp_path / "one" / "sax.nii.gz", beating[:, :, 0], change=as_time)
    assert {series.image.shape[:2] for series in by_every_reader(tmp_path)} == {(1, 12)}
    save(tmp_path / "one" / "sax.nii.gz", beating[:, :, 0])
    times = [40.0 * frame for frame in range(12)]
    (tmp_path / "one" / "study.json").write_text(
        f'{{"series": {{"sax": {{"frame_times_ms": {times}}}}}}}'
    )
    for series in by_every_reader(tmp_path):
        assert series.image.shape[:2] == (1, 12)
        assert series.frame_times_ms == tuple(times)


def test_more_axes_and_unknown_settings_are_refused(tmp_path, beating):
    save(tmp_path / "one" / "sax.nii.gz", np.stack([beating, beating], axis=4))
    for outcome in by_every_reader(tmp_path):
        assert "sax.nii.gz, field 'dim': the image has 5 axes" in outcome
    for settings in (
        {"third_axis": "x"},
        {"spacing_mm": [1, 2]},
        {"spacing_mm": [8, -1, 1]},
        {"spacing_mm": [8, float("nan"), 1]},
        {"spacing_mm": ["8", 1, 1]},
    ):
        with pytest.raises(CmrvlmError, match=next(iter(settings))):
            ReadingSettings(**settings)


def test_slices_of_1_mm_make_no_heart_until_their_spacing_is_stated(tmp_path, beating):
    big = np.kron(beating, np.ones((4, 4, 1, 1), np.float32))
    save(tmp_path / "one" / "sax.nii.gz", big, np.eye(4))
    for outcome in by_every_reader(tmp_path):
        assert "6 slices 1 mm apart make 6 mm, no heart" in outcome
        assert "spacing_mm" in outcome
    for series in by_every_reader(tmp_path, spacing_mm=[9.0, 1.5, 1.25]):
        assert series.spacing_mm == pytest.approx((9, 1.5, 1.25))
    # A file that states its own keeps it.
    save(tmp_path / "one" / "sax.nii.gz", big, np.diag([2.0, 2.0, 10.0, 1.0]))
    for series in by_every_reader(tmp_path, spacing_mm=[9.0, 1.5, 1.25]):
        assert series.spacing_mm == pytest.approx((10, 2, 2))
    # The order of the header would make pixels of 9 mm, which is no chest.
    save(tmp_path / "one" / "sax.nii.gz", np.kron(big, np.ones((2, 2, 1, 1))), np.eye(4))
    for outcome in by_every_reader(tmp_path, spacing_mm=[1.25, 1.25, 9.0]):
        assert "1440 x 180 mm" in outcome


HEADER_TIMES = {
    "s": (8, 0.04, 40.0),
    "ms": (16, 40.0, 40.0),
    "us": (24, 40000.0, 40.0),
    "no unit, s": (0, 0.05, 50.0),
    "no unit, ms": (0, 50.0, 50.0),
    "no unit, us": (0, 50000.0, 50.0),
    "no unit, 1": (0, 1.0, None),
    "no unit, 0": (0, 0.0, None),
    "no unit, nonsense": (0, 7.0, None),
    "1 s a frame": (8, 1.0, None),
    "1 ms a frame": (16, 1.0, None),
    "0 ms": (16, 0.0, None),
    "negative": (16, -40.0, None),
    "nan": (16, np.nan, None),
}


@pytest.mark.parametrize("kind", HEADER_TIMES)
def test_distance_of_frames_is_read_by_its_unit(tmp_path, beating, kind):
    unit, step, step_ms = HEADER_TIMES[kind]

    def change(image):
        image.header["xyzt_units"] = 2 + unit
        image.header["pixdim"][4] = step

    save(tmp_path / "one" / "sax.nii.gz", beating, change=change)
    for series in by_every_reader(tmp_path):
        if step_ms is None:
            assert series.frame_times_ms is None
        else:
            assert series.frame_times_ms == pytest.approx(np.arange(12) * step_ms, rel=1e-6)


def test_the_written_header_states_the_true_distance_of_frames(tmp_path, beating):
    image = beating.transpose(2, 3, 1, 0)
    times = tuple(20 + 35.5 * frame + (frame == 4) for frame in range(12))
    for stated, step, unit in ((times, 35.5, "msec"), (None, 0.0, "unknown")):
        write_nifti(tmp_path / "sax.nii.gz", image, SLICE, stated)
        header = nib.load(tmp_path / "sax.nii.gz").header
        assert header["pixdim"][4] == pytest.approx(step)
        assert header.get_xyzt_units() == ("mm", unit)


def test_a_mask_is_written_like_its_image_in_every_layout(tmp_path, beating):
    """A folder of frames has one mask; its frames are the fourth axis."""
    for frame in range(12):
        save(tmp_path / "exam" / "sax" / f"{frame}.nii.gz", beating[..., frame])
    for stored in (beating, beating[..., None], beating[:, :, :, None], beating[:, :, 0]):
        path = save(tmp_path / "one" / "sax.nii.gz", stored)
        series = read_series(path, "sax", TIMES)
        labels = (series.image > 500).astype(np.uint8)
        write_mask(tmp_path / "mask.nii.gz", labels, path, "sax", TIMES)
        written = np.asarray(nib.load(tmp_path / "mask.nii.gz").dataobj)
        assert (written == (stored > 500)).all()
    folder = image_files(tmp_path / "exam")["sax"]
    assert image_files(tmp_path / "exam" / "sax") == {"sax": folder}
    labels = (read_series(folder, "sax").image > 500).astype(np.uint8)
    write_mask(tmp_path / "mask.nii.gz", labels, folder, "sax")
    mask = nib.load(tmp_path / "mask.nii.gz")
    assert (np.asarray(mask.dataobj) == (beating > 500)).all()
    np.testing.assert_allclose(mask.affine, SLICE)


def test_a_mask_of_a_cine_whose_third_axis_is_time_is_read_with_it(tmp_path, beating):
    save(tmp_path / "one" / "sax.nii.gz", beating[:, :, 0])
    save(tmp_path / "one" / "sax_mask.nii.gz", (beating[:, :, 0] > 500).astype(np.uint8))
    source = NiftiSource(str(tmp_path), third_axis="t")
    series = source.load("one").series["sax"]
    assert (series.mask == (series.image > 500)).all()


def test_frames_off_the_grid_or_in_two_files_are_named(tmp_path, beating):
    folder = tmp_path / "one" / "sax"
    for frame in range(3):
        save(folder / f"{frame}.nii.gz", beating[..., frame])
    save(folder / "1.nii", beating[..., 1])
    assert all("1 is there twice" in outcome for outcome in by_every_reader(tmp_path))
    (folder / "1.nii").unlink()
    moved = SLICE.copy()
    moved[0, 3] = 7
    save(folder / "1.nii.gz", beating[..., 1], moved)
    assert all("1.nii.gz" in outcome for outcome in by_every_reader(tmp_path))


def test_real_stacks_are_told_from_time_by_themselves(real_data, caplog):
    """A frame of ACDC has three axes, and no user needs to say that the third holds slices."""
    caplog.set_level(logging.ERROR)
    files = sorted((real_data / "acdc").rglob("*frame01.nii.gz"))
    for path in files[::5]:
        series = read_series(path, "sax")
        assert series.image.shape[:2] == (nib.load(path).shape[2], 1)
