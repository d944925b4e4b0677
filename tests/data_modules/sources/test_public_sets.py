"""Public data sets in their own layouts, with their label values, frame counting and traps."""

import json
import logging
import re
import shutil

import nibabel as nib
import numpy as np
import pytest
import yaml

from cmrvlm.errors import CmrvlmError
from cmrvlm.study.study import Series
from cmrvlm.study.vocabulary import NOT_ANNOTATED, STRUCTURES
from data_modules.checking.faults import WARNING
from data_modules.checking.run import CheckRun
from data_modules.sources.emidec import LABEL_MAP as EMIDEC
from data_modules.sources.emidec import EmidecSource
from data_modules.sources.kaggle_dsb2 import KaggleDsb2Source
from data_modules.sources.manifest import ManifestSource
from data_modules.sources.mask_checks import enclosed_fraction, find_label_error
from data_modules.sources.masks import order_base_to_apex, remap_labels
from data_modules.sources.mnms import LABEL_MAP as MNMS
from data_modules.sources.mnms import MnmsSource
from data_modules.sources.mnms2 import Mnms2Source
from data_modules.sources.myops2020 import LABEL_MAP as MYOPS
from data_modules.sources.myops2020 import Myops2020Source
from data_modules.sources.nifti import NiftiSource
from tests.conftest import CONF
from tests.data_modules.dicom.archive import Archive

ACDC = {0: "background", 1: "rv", 2: "myo", 3: "lv"}
AFFINE = np.diag([-1.5, -1.5, 10.0, 1.0])


def heart(cavity=8, size=40, slices=5):
    """(z, y, x) canonical: a cavity in a ring, a right ventricle on one side; wider at the base."""
    y, x = np.mgrid[:size, :size]
    mask = np.zeros((slices, size, size), np.uint8)
    for z in range(slices):
        far = np.hypot(y - 20, x - 24)
        beside = np.hypot(y - 20, x - 12) < 8
        mask[z][beside] = STRUCTURES["rv"]
        mask[z][far < cavity - z / 2 + 3] = STRUCTURES["myo"]
        mask[z][far < cavity - z / 2] = STRUCTURES["lv"]
    return mask


def coded(mask, label_map):
    """A canonical mask in a data set's values."""
    result = np.zeros_like(mask)
    for value, name in label_map.items():
        result[mask == STRUCTURES[name]] = value
    return result


def test_each_set_s_values_become_the_same_labels_and_a_wrong_map_is_seen(tmp_path):
    truth = heart()
    for label_map in (ACDC, MNMS):
        assert (remap_labels(coded(truth, label_map), label_map, tmp_path) == truth).all()
        assert find_label_error(truth) is None
    wrong = remap_labels(coded(truth, ACDC), MNMS, tmp_path)
    assert "right cavity" in find_label_error(wrong)
    assert enclosed_fraction(truth, "lv") == 1.0
    assert enclosed_fraction(truth * (truth == STRUCTURES["rv"]), "lv") is None
    assert find_label_error(truth * (truth != STRUCTURES["myo"])) is None


def test_scar_counts_as_myocardium_where_the_cavity_is_enclosed():
    mask = heart()
    mask[(mask == STRUCTURES["myo"]) & (np.arange(40)[None, :, None] < 20)] = STRUCTURES["scar"]
    assert find_label_error(mask) is None


def test_emidec_values_and_an_unknown_one(tmp_path):
    values = np.repeat([0, 1, 2, 3, 4], 100)
    mask = remap_labels(values, EMIDEC, tmp_path)
    assert (mask == STRUCTURES["lv"]).sum() == 100
    assert np.isin(mask, [STRUCTURES[n] for n in ("myo", "scar", "no_reflow")]).sum() == 300
    assert np.isin(mask, [STRUCTURES[n] for n in ("scar", "no_reflow")]).sum() == 200
    with pytest.raises(CmrvlmError, match=r"unknown label values \[7\]"):
        remap_labels(np.array([0, 7]), EMIDEC, tmp_path)
    with pytest.raises(CmrvlmError, match=r"\[0.5\]"):
        remap_labels(np.array([0, 0.5]), EMIDEC, tmp_path)


def test_base_comes_first_and_levels_follow():
    mask = heart()[:, None]
    series = Series(image=mask.astype(np.float32), affine=np.eye(4), mask=mask, phases={"ed": 0})
    flipped = order_base_to_apex(
        Series(
            image=series.image[::-1].copy(),
            affine=np.eye(4),
            mask=mask[::-1].copy(),
            phases={"ed": 0},
        )
    )
    assert (flipped.mask == mask).all()
    assert (
        flipped.levels
        == order_base_to_apex(series).levels
        == ("basal", "basal", "mid", "mid", "apical")
    )


def nifti(path, array):
    """(z, y, x) or (z, t, y, x) as NIfTI."""
    path.parent.mkdir(parents=True, exist_ok=True)
    axes = (2, 1, 0) if array.ndim == 3 else (3, 2, 0, 1)
    nib.save(nib.Nifti1Image(array.transpose(axes), AFFINE), path)


@pytest.fixture
def mnms(tmp_path):
    """One study of M&Ms with masks at frames 0 and 4; `write` changes its row."""
    mask = np.zeros((5, 10, 40, 40), np.uint8)
    mask[:, 0], mask[:, 4] = coded(heart(8), MNMS), coded(heart(5), MNMS)
    nifti(
        tmp_path / "Training" / "A0S9V9" / "A0S9V9_sa.nii.gz",
        np.random.default_rng(0).random(mask.shape).astype(np.float32),
    )
    nifti(tmp_path / "Training" / "A0S9V9" / "A0S9V9_sa_gt.nii.gz", mask)

    def write(**changes):
        row = {
            "External code": "A0S9V9",
            "Vendor": "A",
            "Pathology": "HCM",
            "Age": "51",
            "Sex": "F",
            "Height": "N/A",
            "Weight": "70",
            "ED": "0",
            "ES": "4",
        } | changes
        text = ",".join(row) + "\n" + ",".join(row.values()) + "\nB1,A,NOR,1,M,1,1,0,4\n"
        (tmp_path / "211230_M&Ms_Dataset_information_diagnosis_opendataset.csv").write_text(text)
        return MnmsSource(str(tmp_path))

    return write


def test_mnms_frames_count_from_zero(mnms):
    source = mnms()
    assert source.study_ids() == ["A0S9V9"]
    study = source.load("A0S9V9")
    sax = study.series["sax"]
    assert sax.phases == {"ed": 0, "es": 4}
    assert (sax.mask[:, 0] == heart(8)).all()
    assert (sax.mask[:, 1] == NOT_ANNOTATED).all()
    assert study.labels.diseases == {"HCM"}
    assert study.labels.demographics == {"age_years": 51.0, "sex": "f", "weight_kg": 70.0}
    assert study.labels.measurements["lvedv_ml"] == pytest.approx(
        (heart(8) == 1).sum() * 22.5 / 1000
    )
    assert mnms(Pathology="Other").load("A0S9V9").labels.diseases is None


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"ES": "5"}, "frame 5 has no mask"),
        ({"ES": "10"}, "no frame of 10"),
        ({"ED": "4", "ES": "0"}, "not larger"),
        ({"ED": ""}, "no frame"),
    ],
)
def test_mnms_frames_off_by_one_are_found(mnms, change, problem):
    with pytest.raises(CmrvlmError, match=problem):
        mnms(**change).load("A0S9V9")


@pytest.mark.parametrize(
    ("change", "field", "problem"),
    [
        ({"ED": "zero"}, "ED", "no number"),
        ({"ED": "0.5"}, "ED", "no frame of 10"),
        ({"ES": "²"}, "ES", "no number"),
    ],
)
def test_bad_numbers_of_mnms_are_named_with_their_row(mnms, change, field, problem):
    with pytest.raises(CmrvlmError, match=problem) as refused:
        mnms(**change).load("A0S9V9")
    assert refused.value.field in (f"{field}, row 2", field)
    assert refused.value.remedy


@pytest.mark.parametrize(
    "name", ["201014_M&Ms_Dataset_Information_-_opendataset.csv", "datasetinformation.CSV"]
)
def test_the_table_of_mnms_is_found_under_any_spelling(mnms, tmp_path, name):
    mnms()
    next(tmp_path.glob("*.csv")).rename(tmp_path / name)
    assert MnmsSource(str(tmp_path)).study_ids() == ["A0S9V9"]


def test_a_row_of_another_study_is_no_part_of_a_key(mnms, tmp_path):
    key = mnms().study_fingerprint("A0S9V9")
    (file,) = tmp_path.glob("*.csv")
    file.write_text(file.read_text() + "C1,A,NOR,1,M,1,1,0,4\n")
    assert MnmsSource(str(tmp_path)).study_fingerprint("A0S9V9") == key
    assert mnms(Age="52").study_fingerprint("A0S9V9") != key


@pytest.mark.parametrize("step_ms", [30, 75, 200])
def test_times_of_mnms_are_read(mnms, tmp_path, step_ms):
    source = mnms()
    (path,) = tmp_path.rglob("*_sa.nii.gz")
    image = nib.Nifti1Image(np.array(nib.load(path).dataobj), AFFINE)
    image.header.set_xyzt_units("mm", "sec")
    image.header["pixdim"][4] = step_ms / 1000
    nib.save(image, path)
    expected = pytest.approx(np.arange(10) * step_ms, rel=1e-6)
    assert source.load("A0S9V9").series["sax"].frame_times_ms == expected
    path.with_name("A0S9V9_sa_gt.nii.gz").unlink()
    assert source.load("A0S9V9").series["sax"].frame_times_ms == expected


def test_mnms_elsewhere_is_refused(tmp_path):
    with pytest.raises(CmrvlmError, match="0 tables"):
        MnmsSource(str(tmp_path))


@pytest.fixture
def emidec(tmp_path):
    mask = coded(heart(), {0: "background", 1: "lv", 2: "myo"})
    mask[:2, 18:22, 33] = 3
    for case in ("Case_N001", "Case_P002"):
        nifti(tmp_path / case / "Images" / f"{case}.nii.gz", np.ones(mask.shape, np.float32))
        nifti(
            tmp_path / case / "Contours" / f"{case}.nii.gz",
            np.minimum(mask, 2) if "N" in case else mask[::-1].copy(),
        )
    (tmp_path / "Case P002.txt").write_bytes(
        "Sex\xa0: M\r\nAge\xa0: 65 \r\nFEVG : 55\r\nTroponin : high\r\n".encode("cp1252")
    )
    return tmp_path


def test_emidec_cases_with_their_text(emidec):
    source = EmidecSource(str(emidec))
    assert source.strata() == ["normal", "pathological"]
    normal, scarred = (source.load(study) for study in source.study_ids())
    assert normal.labels.diseases == {"NOR"}
    assert normal.labels.findings == {"lv_lge": False}
    assert scarred.labels.diseases == {"MI"}
    assert scarred.labels.findings == {"lv_lge": True}
    assert scarred.labels.measurements == {"lvef_percent": 55.0}
    assert scarred.labels.demographics == {"age_years": 65.0, "sex": "m"}
    lge = scarred.series["lge"]
    assert (lge.mask[0] == STRUCTURES["scar"]).any()
    assert lge.levels[0] == "basal"
    assert lge.drawn == normal.series["lge"].drawn == ("scar", "no_reflow")
    assert emidec / "Case P002.txt" in source.files("Case_P002")
    with pytest.raises(CmrvlmError, match="no case"):
        EmidecSource(str(emidec / "Case_N001"))


def test_real_emidec_cases(real_data):
    source = EmidecSource(str(real_data / "emidec"))
    assert source.study_ids() == ["Case_P100", "sampleNegative", "samplePositive"]
    assert source.strata() == ["pathological", "normal", "pathological"]
    study = source.load("Case_P100")
    assert study.labels.demographics == {"age_years": 65.0, "sex": "m"}
    assert study.labels.measurements == {"lvef_percent": 55.0}
    mask = study.series["lge"].mask
    assert [
        int((mask == STRUCTURES[name]).sum()) for name in ("lv", "myo", "scar", "no_reflow")
    ] == [
        4236,
        4489,
        699,
        29,
    ]
    assert find_label_error(mask) is None
    assert study.series["lge"].levels[0] == "basal"
    assert np.allclose(study.series["lge"].spacing_mm, (13.0, 1.40625, 1.40625), atol=1e-4)
    assert source.load("sampleNegative").labels.findings == {"lv_lge": False}


def test_mnms2_holds_both_axes(tmp_path):
    for view, slices in (("SA", 5), ("LA", 1)):
        for phase, radius in (("ED", 8), ("ES", 5)):
            mask = coded(heart(radius, slices=slices), MNMS)
            stem = tmp_path / "dataset" / "007" / f"007_{view}_{phase}"
            nifti(stem.with_name(f"{stem.name}.nii.gz"), mask.astype(np.float32))
            nifti(stem.with_name(f"{stem.name}_gt.nii.gz"), mask)
    (tmp_path / "dataset_information.csv").write_text(
        "SUBJECT_CODE,DISEASE,VENDOR\n7,TRI,X\n8,NOR,X\n"
    )
    source = Mnms2Source(str(tmp_path))
    assert source.study_ids() == ["007"]
    study = source.load("007")
    assert list(study.series) == ["sax", "lax_4ch"]
    assert (study.series["sax"].mask[:, 1] == heart(5)).all()
    assert study.series["lax_4ch"].phases == {"ed": 0, "es": 1}
    assert study.labels.diseases is None
    assert study.labels.measurements["lvef_percent"] > 0
    assert len(source.files("007")) == 8
    with pytest.raises(CmrvlmError, match="no such file"):
        Mnms2Source(str(tmp_path / "dataset"))
    for suffix in ("", "_gt"):
        path = tmp_path / "dataset" / "007" / f"007_SA_ES{suffix}.nii.gz"
        nifti(path, nib.load(path).get_fdata().T[:-1].astype(np.float32))
    with pytest.raises(CmrvlmError, match=r"007_SA_ES\.nii\.gz.*one grid"):
        source.load("007")


def test_myops_codes(tmp_path):
    mask = heart().astype(np.int32)
    mask[:2, 18:22, 33] = STRUCTURES["scar"]
    values = np.zeros_like(mask)
    for value, name in {200: "myo", 500: "lv", 600: "rv", 2221: "scar"}.items():
        values[mask == STRUCTURES[name]] = value
    nifti(tmp_path / "train25" / "myops_training_101_DE.nii.gz", values.astype(np.float32))
    nifti(tmp_path / "gd" / "myops_training_101_gd.nii.gz", values)
    nifti(tmp_path / "test20" / "myops_test_201_DE.nii.gz", values.astype(np.float32))
    source = Myops2020Source(str(tmp_path))
    hidden, study = (source.load(name) for name in source.study_ids())
    assert (study.series["lge"].mask[:, 0] == mask).all()
    assert study.labels.findings == {"lv_lge": True}
    assert hidden.series["lge"].mask is None
    assert not hidden.labels.findings
    assert MYOPS[1220] == "myo"
    with pytest.raises(CmrvlmError, match=r"_DE\.nii\.gz"):
        Myops2020Source(str(tmp_path / "gd"))


@pytest.mark.parametrize("order", [("myo", "lv", "rv"), ("rv", "lv", "myo")])
def test_myops_counted_up_in_either_order(tmp_path, order):
    """The myocardium is where it encloses the left ventricle; oedema is myocardium."""
    mask = heart()
    mask[:2, 18:22, 33] = STRUCTURES["scar"]
    values = coded(mask, dict(enumerate(order, start=1)) | {5: "scar"})
    values[3][(mask[3] == STRUCTURES["myo"]) & (np.arange(40) < 20)] = 4
    nifti(tmp_path / "a_DE.nii.gz", values.astype(np.float32))
    nifti(tmp_path / "a_gd.nii.gz", values)
    [study_id] = (source := Myops2020Source(str(tmp_path))).study_ids()
    assert (source.load(study_id).series["lge"].mask[:, 0] == mask).all()
    for wrong, problem in ((2 * (values == 2), "1 or 3"), (values + 7 * (values == 4), "11")):
        nifti(tmp_path / "a_gd.nii.gz", wrong.astype(np.uint8))
        with pytest.raises(CmrvlmError, match=rf"a_gd\.nii\.gz.*{problem}"):
            source.load(study_id)


def test_mnms_as_it_is_distributed_with_its_unlabelled_part(mnms, tmp_path, caplog):
    """The first table has neither pathology nor demographics, and blank frames without masks."""
    mnms()
    next(tmp_path.glob("*.csv")).unlink()
    image = np.random.default_rng(0).random((5, 10, 40, 40)).astype(np.float32)
    nifti(tmp_path / "Training" / "Unlabeled" / "B1" / "B1_sa.nii.gz", image)
    (tmp_path / "201014_M&Ms_Dataset_Information_-_opendataset.csv").write_text(
        ",External code,VendorName,Vendor,Centre,ED,ES\n0,A0S9V9,Siemens,A,1,0,4\n1,B1,GE,C,4,,\n"
    )
    with caplog.at_level(logging.INFO):
        source = MnmsSource(str(tmp_path))
    assert "1 of 2" in caplog.text
    labelled, unlabelled = (source.load(study_id) for study_id in source.study_ids())
    assert labelled.labels.measurements["lvedv_ml"] > labelled.labels.measurements["lvesv_ml"]
    assert labelled.labels.diseases is None
    assert unlabelled.series["sax"].mask is None
    assert not unlabelled.series["sax"].phases
    assert not unlabelled.labels.measurements


def test_spacing_that_files_lack_is_stated_for_public_sets_too(mnms, tmp_path):
    mnms()
    for path in tmp_path.rglob("*.nii.gz"):
        # Nibabel would read the file that it is writing.
        values = np.array(nib.load(path).dataobj)
        nib.save(nib.Nifti1Image(values, np.eye(4)), path)
    with pytest.raises(CmrvlmError, match=r"A0S9V9_sa\.nii\.gz.*5 slices 1 mm apart"):
        MnmsSource(str(tmp_path)).load("A0S9V9")
    study = MnmsSource(str(tmp_path), spacing_mm=[10.0, 1.5, 1.5]).load("A0S9V9")
    expected = (heart(8) == 1).sum() * 22.5 / 1000
    assert study.labels.measurements["lvedv_ml"] == pytest.approx(expected)


def test_data_science_bowl_is_read_without_series_uids(tmp_path):
    strip = lambda one, s, t: delattr(one, "SeriesInstanceUID")  # noqa: E731
    for s in range(4):
        archive = Archive(tmp_path / "12" / "study" / f"sax_{s}")
        archive.cine(
            frames=8, skip=[(other, None) for other in range(4) if other != s], change=strip
        )
    (tmp_path / "train.csv").write_text("Id,Systole,Diastole\n12,60.0,150.0\n")
    source = KaggleDsb2Source(str(tmp_path), str(tmp_path / "train.csv"))
    study = source.load("12")
    assert study.series["sax"].image.shape[:2] == (4, 8)
    assert study.labels.measurements == {
        "lvesv_ml": 60.0,
        "lvedv_ml": 150.0,
        "lvef_percent": pytest.approx(60.0),
    }
    with pytest.raises(CmrvlmError, match="no <id>/study"):
        KaggleDsb2Source(str(tmp_path / "12"))


@pytest.fixture
def data_science_bowl(tmp_path):
    """Return a function that makes the source of one study without images from its volumes."""

    def make(text):
        (tmp_path / "12" / "study").mkdir(parents=True, exist_ok=True)
        (tmp_path / "train.csv").write_text(text)
        return KaggleDsb2Source(str(tmp_path), str(tmp_path / "train.csv"))

    return make


@pytest.mark.parametrize(
    ("volumes", "known", "note"),
    [
        ("x,150", {"lvedv_ml": 150.0}, "lvesv_ml.*no number"),
        ("60,0.15", {"lvesv_ml": 60.0}, "lvedv_ml.*plausible"),
        ("inf,150", {"lvedv_ml": 150.0}, "lvesv_ml.*not finite"),
        ("-60,150", {"lvedv_ml": 150.0}, "lvesv_ml.*plausible"),
        ("0,150", {"lvedv_ml": 150.0}, "lvesv_ml.*plausible"),
        ("60,10000", {"lvesv_ml": 60.0}, "lvedv_ml.*plausible"),
        ("150,60", {}, "lvesv_ml and lvedv_ml.*150 ml.*60 ml"),
        ("60,60", {}, "lvesv_ml and lvedv_ml"),
        ("149.9,150", {}, "lvesv_ml and lvedv_ml.*plausible"),
    ],
)
def test_impossible_volumes_of_the_data_science_bowl_are_unknown(
    data_science_bowl, caplog, volumes, known, note
):
    source = data_science_bowl(f"Id,Systole,Diastole\n12,{volumes}\n")
    assert source._stated_numbers("12").values == known
    (said,) = source.notes("12")
    assert re.search(note, said)
    source.log_notes(source.study_ids())
    assert "1 values cannot be right" in caplog.text


def test_a_table_of_the_data_science_bowl_without_a_column_is_refused(data_science_bowl):
    with pytest.raises(CmrvlmError, match="no column Diastole") as refused:
        data_science_bowl("Id,Systole\n12,60\n")
    assert refused.value.field == "Diastole"


def test_unknown_volumes_of_the_data_science_bowl_are_left_out(data_science_bowl):
    source = data_science_bowl("ID;systole;DIASTOLE\n12;n/a;150,5\n")
    assert source._stated_numbers("12").values == {"lvedv_ml": 150.5}
    assert source._stated_numbers("13").values == {}
    assert source.notes("12") == source.notes("13") == []


@pytest.mark.parametrize("drawn", [(), ("scar",), ("no_reflow",)])
@pytest.mark.parametrize("structure", ["scar", "no_reflow", "myo"])
def test_a_scar_mask_makes_late_enhancement_assessed(tmp_path, structure, drawn):
    """Found where the mask shows it; denied only where scars were looked for."""
    mask = heart().transpose(2, 1, 0)
    mask[20:24, 9:12] = STRUCTURES[structure]
    folder = tmp_path / "set" / "a"
    folder.mkdir(parents=True)
    image = np.random.default_rng(0).uniform(0, 99, mask.shape).astype(np.float32)
    nib.save(nib.Nifti1Image(image, AFFINE), folder / "lge.nii.gz")
    nib.save(nib.Nifti1Image(mask, AFFINE), folder / "lge_mask.nii.gz")
    (folder / "study.json").write_text(json.dumps({"series": {"lge": {"drawn": list(drawn)}}}))
    table = tmp_path / "set" / "studies.csv"
    table.write_text("study_id,lge,lge_mask\na,a/lge.nii.gz,a/lge_mask.nii.gz\n")

    stated = NiftiSource(str(tmp_path / "set")).load("a").labels.findings
    listed = ManifestSource(str(table)).load("a").labels.findings
    if structure in ("scar", "no_reflow"):
        assert stated == listed == {"lv_lge": True}
    else:
        assert stated == ({"lv_lge": False} if drawn == ("scar",) else {})
        assert listed == {}

    table.write_text("study_id,lge,lge_mask,finding_lv_lge\na,a/lge.nii.gz,a/lge_mask.nii.gz,no\n")
    assert ManifestSource(str(table)).load("a").labels.findings["lv_lge"] is False


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"Height": "1.64"}, "height_cm"),
        ({"Height": "0"}, "height_cm"),
        ({"Height": "1640"}, "height_cm"),
        ({"Height": "tall"}, "height_cm"),
        ({"Weight": "inf"}, "weight_kg"),
        ({"Weight": "-70"}, "weight_kg"),
        ({"Age": "fifty"}, "age_years"),
        ({"Age": "510"}, "age_years"),
    ],
)
def test_impossible_numbers_of_mnms_are_unknown_and_counted(mnms, caplog, change, name):
    good = mnms(Height="164").load("A0S9V9").labels.demographics
    source = mnms(**{"Height": "164"} | change)
    stated = source.load("A0S9V9").labels.demographics
    assert stated == {other: value for other, value in good.items() if other != name}
    (note,) = source.notes("A0S9V9")
    assert name in note
    with caplog.at_level(logging.WARNING):
        source.log_notes(source.study_ids())
    assert "1 values cannot be right" in caplog.text
    assert "A0S9V9" in caplog.text
    assert mnms(Height="N/A").notes("A0S9V9") == []


@pytest.mark.parametrize(
    ("text", "known", "unknown"),
    [
        ("Age : 65\nFEVG : 55", {"age_years": 65.0, "lvef_percent": 55.0}, []),
        ("Age : 65\nFEVG : 55,5", {"age_years": 65.0, "lvef_percent": 55.5}, []),
        ("Age : old\nFEVG : 55", {"lvef_percent": 55.0}, ["age_years"]),
        ("Age : 65\nFEVG : about 50", {"age_years": 65.0}, ["lvef_percent"]),
        ("Age : 650\nFEVG : 550", {}, ["age_years", "lvef_percent"]),
        ("Age : NC\nFEVG : nan", {}, ["age_years"]),
        ("Age : -\nFEVG : n/a", {}, []),
    ],
)
def test_what_is_no_number_in_the_text_of_emidec_is_said(emidec, caplog, text, known, unknown):
    (emidec / "Case P002.txt").write_text(f"Sex : M\n{text}\n")
    source = EmidecSource(str(emidec))
    labels = source.load("Case_P002").labels
    stated = {**labels.demographics, **labels.measurements}
    assert stated == {**known, "sex": "m"}
    notes = source.notes("Case_P002")
    assert sorted(note.split()[0] for note in notes) == unknown
    source.log_notes(source.study_ids())
    assert (f"{len(unknown)} values" in caplog.text) == bool(unknown)


def test_numbers_that_count_as_unknown_are_warnings_of_a_check(mnms, tmp_path):
    run = CheckRun(mnms(Height="1.64", Weight="0"), tmp_path / "check", workers=1)
    (checked,) = run.run()
    faults = [fault for fault in checked.faults if fault.code == "unknown_number"]
    assert [fault.level for fault in faults] == [WARNING, WARNING]
    assert "height_cm" in faults[0].text


def test_spacing_that_files_of_emidec_lack_is_stated(emidec):
    for path in emidec.rglob("*.nii.gz"):
        values = np.array(nib.load(path).dataobj)
        nib.save(nib.Nifti1Image(values, np.eye(4)), path)
    with pytest.raises(CmrvlmError, match=r"Case_P002\.nii\.gz.*5 slices 1 mm apart"):
        EmidecSource(str(emidec)).load("Case_P002")
    stated = EmidecSource(str(emidec), spacing_mm=[10.0, 1.5, 1.5])
    assert stated.load("Case_P002").series["lge"].spacing_mm == (10.0, 1.5, 1.5)


def test_every_source_of_nifti_files_takes_their_spacing():
    for name in ("acdc", "emidec", "manifest", "mnms", "mnms2", "myops2020", "nifti"):
        source = yaml.safe_load((CONF / "data" / f"{name}.yaml").read_text())["source"]
        assert source["spacing_mm"] is None


@pytest.mark.parametrize("count", [1, 2])
def test_cases_of_emidec_without_contours_are_unlabelled_and_counted(emidec, caplog, count):
    caplog.set_level("INFO")
    for case in ("Case_N001", "Case_P002")[:count]:
        shutil.rmtree(emidec / case / "Contours")
    source = EmidecSource(str(emidec))
    assert f"{count} of 2 cases have no contours" in caplog.text
    study = source.load("Case_N001")
    assert study.series["lge"].mask is None
    assert study.series["lge"].drawn == ()
    assert study.labels.findings == {}
    # A file that is missing where there are contours is an error.
    (emidec / "Case_P002" / "Contours").mkdir(exist_ok=True)
    (emidec / "Case_P002" / "Contours" / "Case_P002.nii.gz").unlink(missing_ok=True)
    with pytest.raises(CmrvlmError, match=r"Contours.Case_P002\.nii\.gz"):
        EmidecSource(str(emidec)).load("Case_P002")


@pytest.mark.parametrize("slices", [1, 3, 6])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16])
def test_a_mask_of_myops_without_a_heart_is_background(tmp_path, slices, dtype):
    values = np.zeros((slices, 40, 40), dtype)
    nifti(tmp_path / "a_DE.nii.gz", np.random.default_rng(0).random(values.shape).astype("f4"))
    nifti(tmp_path / "a_gd.nii.gz", values)
    study = Myops2020Source(str(tmp_path)).load("a")
    assert not study.series["lge"].mask.any()
    # It does not say that there is no scar.
    assert study.labels.findings == {}


@pytest.mark.parametrize(
    ("set_of", "table", "header", "row", "other"),
    [
        (MnmsSource, "dataset_information.csv", "External code,ED,ES,Age", "A,0,4,51", "A,0,4,15"),
        (Mnms2Source, "dataset_information.csv", "SUBJECT_CODE,DISEASE", "007,NOR", "7,HCM"),
        (KaggleDsb2Source, "train.csv", "Id,Systole,Diastole", "1,50,100", "1,60,100"),
    ],
)
def test_two_rows_about_one_study_are_named(tmp_path, set_of, table, header, row, other):
    nifti(tmp_path / "A" / "A_sa.nii.gz", np.ones((3, 10, 40, 40), np.float32))
    (tmp_path / "dataset" / "007").mkdir(parents=True)
    (tmp_path / "1" / "study").mkdir(parents=True)
    (tmp_path / table).write_text("\n".join([header, row, other]) + "\n")
    more = {"table": str(tmp_path / table)} if set_of is KaggleDsb2Source else {}
    with pytest.raises(CmrvlmError, match=rf"{table}.*row 3.*first in row 2"):
        set_of(str(tmp_path), **more)
    (tmp_path / table).write_text("\n".join([header, row, row]) + "\n")
    assert len(set_of(str(tmp_path), **more).study_ids()) == 1
