import nibabel as nib
import numpy as np
import pytest

from cmrvlm.errors import CmrvlmError
from cmrvlm.quantification.ventricles import quantify
from cmrvlm.study.series_files import read_nifti
from cmrvlm.study.study import Series
from cmrvlm.study.vocabulary import STRUCTURES
from data_modules.sources.acdc import AcdcSource
from data_modules.sources.masks import measure_masks

AFFINE = np.diag([-1.5, -1.5, 10.0, 1.0])


def disc(radius, size=40):
    y, x = np.mgrid[:size, :size]
    return (y - 20) ** 2 + (x - 22) ** 2 < radius**2


def truth(cavity):
    """ACDC coding (x, y, z): 3 cavity in a ring of 2, with a patch of 1 beside it; wider at the base."""
    mask = np.zeros((40, 40, 5), np.uint8)
    for z in range(5):
        mask[..., z][disc(cavity - z + 3)] = 2
        mask[..., z][disc(cavity - z)] = 3
        mask[16:24, 2:6, z] = 1
    return mask


@pytest.fixture
def make(tmp_path):
    """Writes one patient; `flip` stores the apex first, `whole` adds the 4D file."""

    def write(
        info="ED: 1\nES: 5\nGroup: DCM\nHeight: 170.0\nNbFrame: 10\n",
        *,
        flip=False,
        whole=False,
        cavity=(10, 7),
    ):
        folder = tmp_path / "patient001"
        folder.mkdir(exist_ok=True)
        (folder / "Info.cfg").write_text(info)
        rng = np.random.default_rng(0)
        cine = rng.random((40, 40, 5, 10)).astype(np.float32)
        for frame, radius in zip((1, 5), cavity, strict=True):
            mask = truth(radius)
            if flip:
                mask = mask[..., ::-1]
            stem = folder / f"patient001_frame{frame:02d}"
            nib.save(nib.Nifti1Image(cine[..., frame - 1], AFFINE), f"{stem}.nii.gz")
            nib.save(nib.Nifti1Image(mask, AFFINE), f"{stem}_gt.nii.gz")
        if whole:
            nib.save(nib.Nifti1Image(cine, AFFINE), folder / "patient001_4d.nii.gz")
        return AcdcSource(str(tmp_path))

    return write


def test_labels_are_canonical_and_volumes_are_counted(make):
    study = make().load("patient001")
    sax = study.series["sax"]
    assert sax.image.shape == (5, 2, 40, 40)
    assert sax.phases == {"ed": 0, "es": 1}
    expected = sum(disc(10 - z).sum() for z in range(5)) * 1.5 * 1.5 * 10 / 1000
    assert study.labels.measurements["lvedv_ml"] == pytest.approx(expected)
    assert (sax.mask[:, 0] == 1).sum() == sum(disc(10 - z).sum() for z in range(5))
    assert (sax.mask[:, 0] == 3).sum() == 8 * 4 * 5
    assert study.labels.diseases == frozenset({"DCM"})
    assert study.labels.demographics == {"height_cm": 170.0}
    assert sax.levels == ("basal", "basal", "mid", "mid", "apical")


def test_frames_count_from_one_and_the_rest_is_not_annotated(make):
    sax = make(whole=True).load("patient001").series["sax"]
    assert sax.image.shape == (5, 10, 40, 40)
    assert sax.phases == {"ed": 0, "es": 4}
    assert sax.annotated_frames() == (0, 4)
    assert (sax.mask[:, 1] == 255).all()


def test_apex_first_is_turned_round(make):
    plain, flipped = (
        make().load("patient001").series["sax"],
        make(flip=True).load("patient001").series["sax"],
    )
    assert np.array_equal(plain.mask, flipped.mask)
    assert plain.levels == flipped.levels


@pytest.mark.parametrize(
    ("info", "words"),
    [
        ("ES: 5\nGroup: NOR\n", "'ED'"),
        ("ED: x\nES: 5\n", "'ED'"),
        ("ED: 1\nES: 4\n", "frame04"),
        ("ED: 5\nES: 1\n", "not larger"),
    ],
)
def test_wrong_info_is_named(make, info, words):
    with pytest.raises(CmrvlmError, match=words):
        make(info).load("patient001")


def test_missing_keys_are_tolerated_and_unknown_is_not_normal(make):
    labels = make("ED: 1\nES: 5\n").load("patient001").labels
    assert labels.diseases is None
    assert labels.demographics == {}
    assert make("ED: 1\nES: 5\nGroup: RV\n").load("patient001").labels.diseases is None


def test_unknown_label_values_and_empty_masks_are_named(make, tmp_path):
    source = make()
    path = tmp_path / "patient001" / "patient001_frame01_gt.nii.gz"
    nib.save(nib.Nifti1Image(np.full((40, 40, 5), 7, np.uint8), AFFINE), path)
    with pytest.raises(CmrvlmError, match=r"unknown label values \[7\]"):
        source.load("patient001")
    nib.save(nib.Nifti1Image(np.zeros((40, 40, 5), np.uint8), AFFINE), path)
    with pytest.raises(CmrvlmError, match="no mask"):
        source.load("patient001")
    nib.save(nib.Nifti1Image(truth(10).transpose(1, 0, 2)[:30], AFFINE), path)
    with pytest.raises(CmrvlmError, match="one grid"):
        source.load("patient001")


@pytest.mark.parametrize("parts", [(), ("training",), ("testing", "training")])
def test_a_folder_above_those_of_patients_names_these(tmp_path, parts):
    for part in parts:
        (tmp_path / part / "patient001").mkdir(parents=True)
    with pytest.raises(CmrvlmError, match="no patientNNN") as refused:
        AcdcSource(str(tmp_path))
    assert refused.value.field == "data.root"
    assert all(str(tmp_path / part) in refused.value.remedy for part in parts)


def test_wrong_folders_are_named(tmp_path):
    with pytest.raises(CmrvlmError, match="no patientNNN"):
        AcdcSource(str(tmp_path))
    with pytest.raises(CmrvlmError, match="no such folder"):
        AcdcSource(str(tmp_path / "none"))


def test_real_patients(real_data):
    source = AcdcSource(str(real_data / "acdc" / "training"))
    assert len(source.study_ids()) == 25
    assert sorted(set(source.strata())) == ["DCM", "HCM", "MINF", "NOR", "RV"]
    ejection: dict[str, list[float]] = {}
    for study_id, group in zip(source.study_ids(), source.strata(), strict=True):
        labels = source.load(study_id).labels
        ejection.setdefault(group, []).append(labels.measurements["lvef_percent"])
    means = {group: np.mean(values) for group, values in ejection.items()}
    # The challenge's own definition: DCM and MINF have an EF below 40 %, the others a preserved one.
    assert means["DCM"] < 40
    assert means["MINF"] < 45
    assert means["NOR"] > 50
    assert means["HCM"] > 55


def test_groups_of_real_patients_stand_in_the_published_order(real_data):
    """Ejection fraction counted from the experts' masks: dilated lowest, then infarcted, then normal, then thick."""
    source = AcdcSource(str(real_data / "acdc" / "training"))
    ejection: dict[str, list[float]] = {}
    for study_id, group in zip(source.study_ids(), source.strata(), strict=True):
        found = quantify(source.load(study_id).series["sax"])
        assert found.phases == {"ed": 0, "es": 1}
        ejection.setdefault(group, []).append(found.values["lvef_percent"])
    means = {group: np.mean(values) for group, values in ejection.items()}
    assert means["DCM"] < means["MINF"] < means["NOR"] < means["HCM"]


def test_volume_equals_a_count_on_the_untouched_file(real_data):
    source = AcdcSource(str(real_data / "acdc" / "testing"))
    study = source.load("patient101")
    image = nib.load(real_data / "acdc" / "testing" / "patient101" / "patient101_frame01_gt.nii.gz")
    voxel_ml = np.prod(image.header.get_zooms()[:3]) / 1000
    assert study.labels.measurements["lvedv_ml"] == pytest.approx(
        (image.get_fdata() == 3).sum() * voxel_ml, rel=1e-5
    )
    assert study.labels.demographics["weight_kg"] == 79.0


def test_spacing_of_an_affine_without_one_is_the_header_s(tmp_path):
    image = nib.Nifti1Image(np.zeros((4, 4, 2), np.uint8), np.diag([-1.0, -1, 1, 1]))
    image.header.set_zooms((1.6, 1.5, 10.0))
    nib.save(image, tmp_path / "a.nii.gz")
    np.testing.assert_allclose(
        np.diag(read_nifti(tmp_path / "a.nii.gz")[1]), [-1.6, -1.5, 10, 1], rtol=1e-6
    )
    image = nib.Nifti1Image(np.zeros((4, 4, 2), np.uint8), np.diag([-2.0, -2, 8, 1]))
    image.header.set_zooms((1.6, 1.6, 10.0))
    nib.save(image, tmp_path / "b.nii.gz")
    with pytest.raises(CmrvlmError, match=r"b\.nii\.gz.*pixdim"):
        read_nifti(tmp_path / "b.nii.gz")


def test_axes_of_nifti_become_zthw(tmp_path):
    data = np.arange(2 * 3 * 4 * 5, dtype=np.int16).reshape(2, 3, 4, 5)  # x, y, z, t
    nib.save(nib.Nifti1Image(data, AFFINE), tmp_path / "a.nii.gz")
    array, affine = read_nifti(tmp_path / "a.nii.gz")
    assert array.shape == (4, 5, 3, 2)
    assert array[3, 4, 2, 1] == data[1, 2, 3, 4]
    np.testing.assert_allclose(affine, AFFINE)


def test_volumes_count_the_cavity_and_nothing_else():
    """1000 cavity voxels of 1.5 x 1.25 x 10 mm are 18.75 ml, whatever else the mask holds."""
    mask = np.zeros((3, 1, 50, 60), np.uint8)
    for plane, cavity, right in zip(
        mask.reshape(3, -1), (500, 300, 200), (400, 300, 100), strict=True
    ):
        plane[:cavity] = STRUCTURES["lv"]
        plane[1000:1200] = STRUCTURES["myo"]
        plane[1500 : 1500 + right] = STRUCTURES["rv"]
    series = Series(
        image=np.zeros(mask.shape),
        affine=np.diag([1.5, 1.25, 10, 1.0]),
        mask=mask,
        phases={"ed": 0, "es": 0},
    )
    measured = measure_masks(series)
    assert measured["lvedv_ml"] == pytest.approx(18.75)
    assert measured["rvedv_ml"] == pytest.approx(15.0)


@pytest.mark.parametrize(
    ("info", "field", "problem"),
    [
        ("ED: one\nES: 5\n", "ED", "no number"),
        ("ED: ²\nES: 5\n", "ED", "no number"),
        ("ED: 1\nES: 5.5\n", "ES", "frame number is missing"),
        ("ED: 0\nES: 5\n", "ED", "frame number is missing"),
    ],
)
def test_bad_numbers_of_info_are_named_with_file_and_field(make, info, field, problem):
    with pytest.raises(CmrvlmError, match=problem) as refused:
        make(info).load("patient001")
    assert refused.value.field == field
    assert refused.value.file.name == "Info.cfg"
    assert refused.value.remedy


def test_unknown_numbers_of_info_are_unknown(make):
    labels = make("ED: 1\nES: 5\nHeight: nan\nWeight: n/a\n").load("patient001").labels
    assert labels.demographics == {}


@pytest.mark.parametrize("text", ["Height: tall", "Height: 1.7", "Height: 0", "Height: inf"])
def test_impossible_numbers_of_info_are_unknown_and_noted(make, text):
    source = make(f"ED: 1\nES: 5\nWeight: 70\n{text}\n")
    assert source.load("patient001").labels.demographics == {"weight_kg": 70.0}
    (note,) = source.notes("patient001")
    assert note.startswith("height_cm counts as unknown")


def test_spacing_that_files_lack_is_stated(make, tmp_path):
    expected = make(whole=True).load("patient001")
    for path in tmp_path.rglob("*.nii.gz"):
        values = np.array(nib.load(path).dataobj)
        nib.save(nib.Nifti1Image(values, np.eye(4)), path)
    with pytest.raises(CmrvlmError, match="1 mm apart"):
        AcdcSource(str(tmp_path)).load("patient001")
    stated = AcdcSource(str(tmp_path), spacing_mm=[10.0, 1.5, 1.5]).load("patient001")
    assert stated.labels.measurements == pytest.approx(expected.labels.measurements)
    assert stated.series["sax"].spacing_mm == (10.0, 1.5, 1.5)


def test_a_frame_behind_the_end_of_the_cine_is_refused(make):
    source = make(whole=True)
    folder = source.root / "patient001"
    for ending in ("", "_gt"):
        (folder / f"patient001_frame05{ending}.nii.gz").rename(
            folder / f"patient001_frame11{ending}.nii.gz"
        )
    (folder / "Info.cfg").write_text("ED: 1\nES: 11\n")
    with pytest.raises(CmrvlmError, match="11 is none of the 10 frames"):
        source.load("patient001")


def one_slice_fewer(values, affine):
    return values[:, :, :-1], affine


def one_row_more(values, affine):
    return np.concatenate([values, values[:, :1]], axis=1), affine


def moved_20_mm(values, affine):
    moved = affine.copy()
    moved[2, 3] += 20
    return values, moved


def other_pixels(values, affine):
    return values, affine @ np.diag([1.1, 1.1, 1, 1])


@pytest.mark.parametrize("name", ["patient001_4d", "patient001_frame05"])
@pytest.mark.parametrize("change", [one_slice_fewer, one_row_more, moved_20_mm, other_pixels])
def test_files_of_another_grid_than_the_first_frame_are_named(make, change, name):
    source = make(whole=True)
    files = [name] if name.endswith("4d") else [name, f"{name}_gt"]
    for file in files:
        path = source.root / "patient001" / f"{file}.nii.gz"
        values, affine = change(np.array(nib.load(path).dataobj), AFFINE)
        nib.save(nib.Nifti1Image(values, affine), path)
    with pytest.raises(CmrvlmError, match=rf"{name}\.nii\.gz.*one grid: \("):
        source.load("patient001")


@pytest.mark.parametrize(
    ("step", "unit", "step_ms"), [(0.07, "sec", 70), (70, "msec", 70), (0.09, "unknown", 90)]
)
def test_times_of_the_cine_s_header_are_read(make, step, unit, step_ms):
    source = make(whole=True)
    path = source.root / "patient001" / "patient001_4d.nii.gz"
    image = nib.Nifti1Image(np.array(nib.load(path).dataobj), AFFINE)
    image.header.set_xyzt_units("mm", unit)
    image.header["pixdim"][4] = step
    nib.save(image, path)
    times = source.load("patient001").series["sax"].frame_times_ms
    assert times == pytest.approx(np.arange(10) * step_ms, rel=1e-6)
