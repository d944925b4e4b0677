import time

import numpy as np
import pytest

from cmrvlm.reports.writer import write_captions, write_report
from cmrvlm.study.vocabulary import DISEASES, FINDINGS, REPORT_SECTIONS, STRUCTURES
from data_modules.sources.phantom.anatomy import Heart
from data_modules.sources.phantom.measurements import (
    lv_volume_ml,
    myocardial_volume_ml,
    rv_volume_ml,
)
from data_modules.sources.phantom.render import Scanner, render
from data_modules.sources.phantom.source import PhantomSource
from data_modules.sources.phantom.surfaces import Plane


@pytest.fixture(scope="module")
def studies():
    source = PhantomSource(count=32)
    return [source.load(study_id) for study_id in source.study_ids()]


def test_same_seed_and_index_give_the_same_study():
    one, two, other = (
        PhantomSource(count=4, seed=seed).load(f"phantom-{seed}-00002") for seed in (3, 3, 4)
    )
    for name in ("sax", "lax_4ch", "lge"):
        assert np.array_equal(one.series[name].image, two.series[name].image)
    assert one.labels == two.labels
    assert not np.array_equal(one.series["sax"].image, other.series["sax"].image)


def test_content_is_that_of_any_machine():
    """A study as it was once written down: only rounding in the last bit may differ from machine to machine."""
    study = PhantomSource(count=4, seed=0).load("phantom-0-00001")
    values = study.labels.measurements
    assert values["lvedv_ml"] == pytest.approx(121.346, abs=0.01)
    assert values["lvef_percent"] == pytest.approx(66.451, abs=0.01)
    assert values["rvedv_ml"] == pytest.approx(98.569, abs=0.2)
    assert study.labels.demographics == {
        "age_years": 34.0,
        "sex": "f",
        "height_cm": 158.1,
        "weight_kg": 59.6,
    }
    counts = np.bincount(study.series["sax"].mask.ravel())
    assert np.abs(counts - [685218, 16844, 20381, 14837]).max() <= 4
    assert (
        write_report(study.labels, tuple(study.series), "en")["impression"]
        == "hypertrophic cardiomyopathy."
    )


def test_a_study_takes_under_half_a_second():
    source = PhantomSource(count=8)
    source.load(source.study_ids()[0])
    started = time.process_time()
    for study_id in source.study_ids()[1:5]:
        source.load(study_id)
    assert (time.process_time() - started) / 4 < 0.5


def test_shapes_and_sizes(studies):
    shapes = {name: one.image.shape for name, one in studies[0].series.items()}
    assert shapes == {"sax": (8, 10, 96, 96), "lax_4ch": (1, 10, 96, 96), "lge": (8, 1, 96, 96)}
    assert all(study.synthetic for study in studies)


def test_half_ellipsoid_has_its_textbook_volume():
    heart = Heart(length_mm=90, radius_mm=25)
    assert float(lv_volume_ml(heart, np.zeros(1))[0]) == pytest.approx(
        2 / 3 * np.pi * 25**2 * 90 / 1000, rel=1e-3
    )


def test_wall_volume_is_that_of_nested_ellipsoids_in_the_thin_limit():
    heart = Heart(length_mm=90, radius_mm=25, wall_mm=0.01)
    assert myocardial_volume_ml(heart) < 0.5


def test_uniform_contraction_gives_its_ejection_fraction():
    heart = Heart(contraction=0.3, descent_mm=0.0)
    volumes = lv_volume_ml(heart, np.array([0.0, 0.35]))
    assert 1 - float(volumes[1] / volumes[0]) == pytest.approx(1 - 0.7**2, rel=1e-3)


def test_right_ventricle_shrinks_and_grid_does_not_matter():
    heart = Heart()
    coarse, fine = (
        rv_volume_ml(heart, np.array([0.0, 0.35])),
        rv_volume_ml(heart, np.array([0.0, 0.35]), grid_mm=0.75),
    )
    assert coarse[1] < 0.7 * coarse[0]
    np.testing.assert_allclose(coarse, fine, rtol=0.01)


def test_counted_masks_agree_with_the_formulas(studies):
    """Fourteen mm slices count volumes within a few percent of the analytic ones."""
    errors = []
    for study in studies:
        sax, values = study.series["sax"], study.labels.measurements
        for side, value in (("lv", 1), ("rv", 3)):
            counted = (sax.mask[:, sax.phases["ed"]] == value).sum() * sax.voxel_volume_ml
            errors.append(counted / values[f"{side}edv_ml"] - 1)
    assert np.abs(errors).max() < 0.09
    assert abs(np.mean(errors)) < 0.02


def test_volumes_of_one_heart_do_not_depend_on_the_slices():
    fine = PhantomSource(count=1, slices=40, size=128, spacing_mm=(1.4, 1.5)).load(
        "phantom-0-00000"
    )
    sax, values = fine.series["sax"], fine.labels.measurements
    counted = [(sax.mask[:, sax.phases[p]] == 1).sum() * sax.voxel_volume_ml for p in ("ed", "es")]
    assert counted[0] == pytest.approx(values["lvedv_ml"], rel=0.02)
    assert 100 * (counted[0] - counted[1]) / counted[0] == pytest.approx(
        values["lvef_percent"], abs=1.0
    )


def test_atria_are_discs_of_their_radius_on_the_long_axis_alone(studies):
    heart, pixel = Heart(), 0.5
    across = np.arange(-120, 120, pixel, dtype=np.float32)
    plane = Plane(
        across[None, None, None, :],
        np.zeros((1, 1, 1, 1), np.float32),
        across[None, None, :, None],
        pixel,
    )
    at_ed = np.zeros((1, 1, 1, 1), np.float32)
    _, mask = render(
        heart, plane, at_ed, Scanner(), np.random.default_rng(0), lge=False, atria=True
    )
    for name, radius in (("la", heart.la_radius_mm), ("ra", heart.ra_radius_mm)):
        area = (mask == STRUCTURES[name]).sum() * pixel**2
        assert area == pytest.approx(np.pi * radius**2, rel=0.05), name
    atria = [STRUCTURES["la"], STRUCTURES["ra"]]
    for study in studies:
        assert all(
            np.isin(one.mask, atria).any() == (name == "lax_4ch")
            for name, one in study.series.items()
        )


def test_myocardium_encloses_the_cavity(studies):
    for study in studies[:16]:
        sax = study.series["sax"]
        mask = sax.mask[3, sax.phases["ed"]]
        border = np.zeros_like(mask, bool)
        lv = mask == 1
        border[1:-1, 1:-1] = ~lv[1:-1, 1:-1] & (
            lv[:-2, 1:-1] | lv[2:, 1:-1] | lv[1:-1, :-2] | lv[1:-1, 2:]
        )
        assert set(np.unique(mask[border])) == {2}


def test_phases_are_the_largest_and_smallest_cavity(studies):
    for study in studies[:16]:
        sax = study.series["sax"]
        volume = (sax.mask == 1).sum(axis=(0, 2, 3))
        assert volume[sax.phases["ed"]] > 0.95 * volume.max()
        assert volume[sax.phases["es"]] < 1.12 * volume.min()


def test_levels_run_from_base_to_apex(studies):
    for study in studies:
        order = [level for level in study.series["sax"].levels if level]
        assert order == sorted(order, key=["basal", "mid", "apical"].index)
        assert set(order) == {"basal", "mid", "apical"}


def test_sixteen_diseases_show_their_signs(studies):
    by_disease = {next(iter(study.labels.diseases)): study.labels for study in studies[:16]}
    assert set(by_disease) == set(DISEASES)
    values = {code: labels.measurements for code, labels in by_disease.items()}
    assert values["DCM"]["lvef_percent"] < 40 < 55 < values["NOR"]["lvef_percent"]
    assert values["DCM"]["lvedv_ml"] > 1.4 * values["NOR"]["lvedv_ml"]
    assert values["HCM"]["wall_thickness_mm"] > 14
    assert values["ACM"]["rvef_percent"] < 40
    assert by_disease["MI"].findings["lv_lge"]
    assert by_disease["PERI"].findings["pericardial_enhancement"]
    assert by_disease["TTC"].patterns["motion_pattern"] == "apical_ballooning"
    normal = {code for code, abnormal in by_disease["NOR"].findings.items() if abnormal}
    assert normal <= {"rvef", "la_diameter", "ra_diameter"}


def test_all_labels_are_there(studies):
    for study in studies:
        assert set(study.labels.findings) == set(FINDINGS)
        for language in ("en", "zh"):
            assert set(write_report(study.labels, tuple(study.series), language)) == set(
                REPORT_SECTIONS
            )
            assert set(write_captions(study.labels, tuple(study.series), language)) == set(
                study.series
            )
        assert set(study.labels.boxes_mm) == {"lv", "myo", "rv"}
        assert all(np.all(np.array(box[:3]) <= box[3:]) for box in study.labels.boxes_mm.values())


def test_scars_lie_in_the_wall_and_are_bright(studies):
    lge = studies[3].series["lge"]  # infarct
    scar, wall = lge.image[lge.mask == 4], lge.image[lge.mask == 2]
    assert len(scar) > 20
    assert np.median(scar) > 3 * np.median(wall)


def test_sequences_go_missing_as_asked():
    source = PhantomSource(
        count=40, size=32, slices=2, frames=2, missing={"lge": 0.5, "sax": 1.0, "lax_4ch": 1.0}
    )
    found = [set(source.load(study_id).series) for study_id in source.study_ids()]
    assert all(sequences for sequences in found)
    assert 8 < sum("lge" in sequences for sequences in found) < 32


def test_unknown_study_is_named():
    with pytest.raises(ValueError, match="phantom-9"):
        PhantomSource(count=2).load("phantom-9")
