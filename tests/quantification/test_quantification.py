"""Volumes, rates, mass, thickness and scar against analytic hearts and hand-made rings; what is unknown is no number."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from cmrvlm.quantification.figures import bulls_eye, contour_cine, volume_curves
from cmrvlm.quantification.scar import quantify_scar
from cmrvlm.quantification.segments import (
    CENTRES,
    SEGMENT_NAMES,
    level_of_slices,
    sectors,
    septum_direction,
    thickening_percent,
    thickness_mm,
    transmurality_percent,
)
from cmrvlm.quantification.summary import summarize_scar, summarize_ventricles
from cmrvlm.quantification.ventricles import body_surface_area_m2, quantify, rates_ml_per_s
from cmrvlm.quantification.volumes import phases_of
from cmrvlm.study.orientation import flip_slices
from cmrvlm.study.study import Series
from cmrvlm.study.vocabulary import STRUCTURES
from data_modules.sources.phantom.source import PhantomSource

LV, MYO, RV, SCAR, NO_REFLOW = (
    STRUCTURES[name] for name in ("lv", "myo", "rv", "scar", "no_reflow")
)


@pytest.mark.parametrize(
    ("spacing", "size"),
    [
        (2.4, 80),
        pytest.param(1.8, 106, marks=pytest.mark.slow),
        pytest.param(1.4, 136, marks=pytest.mark.slow),
    ],
)
def test_volumes_and_ejection_fraction_of_analytic_hearts(spacing, size):
    """Thin slices, so that what is left is the counting."""
    source = PhantomSource(
        count=16, seed=3, size=size, slices=112, frames=10, spacing_mm=(spacing, spacing)
    )
    for index in (1, 7, 12):
        study = source.load(source.study_ids()[index])
        found, truth = quantify(study.series["sax"]).values, study.labels.measurements
        for name in ("lvedv_ml", "lvesv_ml", "rvedv_ml", "rvesv_ml"):
            assert found[name] == pytest.approx(truth[name], rel=0.02), (index, name)
        for name in ("lvef_percent", "rvef_percent"):
            assert found[name] == pytest.approx(truth[name], abs=1.0), (index, name)
        assert found["lvsv_ml"] == pytest.approx(truth["lvedv_ml"] - truth["lvesv_ml"], rel=0.03)
        assert found["lv_mass_g"] == pytest.approx(truth["lv_mass_g"], rel=0.04)


@pytest.mark.parametrize("spacing", [(1.25, 1.25, 4.0), (1.0, 1.5, 6.0), (0.8, 0.8, 8.0)])
@pytest.mark.parametrize(("turn", "tilt"), [(0.0, 0.0), (0.8, 0.25), (-2.2, -0.35)])
def test_volumes_of_ellipsoids_do_not_depend_on_how_they_are_cut(spacing, turn, tilt):
    """A heart that stays where it is in the patient, under stacks of other pixels, gaps and directions."""
    cavity, wall, right = (
        {"ed": (26, 23, 46), "es": (18, 16, 40)},
        9,
        {"ed": (20, 27, 38), "es": (15, 22, 34)},
    )
    centre, aside = (
        np.array([12.0, -30.0, 55.0]),
        np.array([-62.0, 0.0, 0.0]),
    )  # of the cavities, apart
    axes = Rotation.from_euler("xyz", [0.5, -0.4, 0.9]).as_matrix()  # of the heart, by column
    directions = axes @ Rotation.from_euler("zx", [turn, tilt]).as_matrix()
    shape = tuple(
        int(np.ceil(size / step)) for size, step in zip((150, 230, 230), spacing[::-1], strict=True)
    )
    affine = np.eye(4)
    affine[:3, :3] = directions @ np.diag(spacing)
    affine[:3, 3] = centre - affine[:3, :3] @ (np.array(shape[::-1]) / 2 - 0.3) + axes @ aside / 2
    voxels = np.stack(
        np.meshgrid(*map(np.arange, shape), indexing="ij")[::-1], axis=-1
    )  # (Z, H, W, whz)
    place = (voxels @ affine[:3, :3].T + affine[:3, 3] - centre) @ axes
    mask = np.zeros((shape[0], 2, *shape[1:]), np.uint8)
    for frame, phase in enumerate(("es", "ed")):
        mask[:, frame][np.linalg.norm((place - aside) / right[phase], axis=-1) < 1] = RV
        mask[:, frame][np.linalg.norm(place / (np.array(cavity[phase]) + wall), axis=-1) < 1] = MYO
        mask[:, frame][np.linalg.norm(place / cavity[phase], axis=-1) < 1] = LV
    found = quantify(
        Series(image=np.zeros(mask.shape, np.float32), affine=affine, mask=mask)
    ).values

    def ml(half_axes_mm):
        return 4 / 3 * np.pi * np.prod(half_axes_mm) / 1000

    for name, own in (("lv", cavity), ("rv", right)):
        assert found[f"{name}edv_ml"] == pytest.approx(ml(own["ed"]), rel=0.02)
        assert found[f"{name}esv_ml"] == pytest.approx(ml(own["es"]), rel=0.02)
        assert found[f"{name}ef_percent"] == pytest.approx(
            100 * (1 - ml(own["es"]) / ml(own["ed"])), abs=1.0
        )
    shell = ml(np.array(cavity["ed"]) + wall) - ml(cavity["ed"])
    assert found["lv_mass_g"] == pytest.approx(1.05 * shell, rel=0.02)


def test_phases_are_found_where_the_volume_is_largest_and_smallest():
    source = PhantomSource(count=6, seed=3, size=64, slices=12, frames=12, spacing_mm=(3.0, 3.0))
    for study_id in source.study_ids():
        sax = source.load(study_id).series["sax"]
        blind = quantify(replace(sax, phases={}))
        known = quantify(sax)
        for phase in ("ed", "es"):
            assert abs(blind.phases[phase] - sax.phases[phase]) <= 1
            name = f"lv{phase}v_ml"
            assert blind.values[name] == pytest.approx(known.values[name], rel=0.03)
    assert phases_of(np.array([np.nan, 5.0, np.nan])) == {}
    assert phases_of(np.array([4.0, 4.0])) == {}
    assert phases_of(np.array([np.nan, 5.0, 9.0, 2.0])) == {"ed": 2, "es": 3}


def ring(inner, outer, shape=(3, 1, 80, 80), spacing=(1.25, 1.25, 8.0), rotate=0.0, tilt=0.0):
    """Concentric circles of the given radii in mm in every slice, with a right ventricle towards -x of the patient.

    The image plane is turned by `rotate` about the slice axis and the stack tilted by `tilt`, both in radians.
    """
    z, t, h, w = shape
    c, s = np.cos(rotate), np.sin(rotate)
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    lean = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    affine = np.eye(4)
    affine[:3, :3] = lean @ turn @ np.diag(spacing)
    rows, columns = np.mgrid[:h, :w]
    plane = (
        np.stack([(columns - (w - 1) / 2) * spacing[0], (rows - (h - 1) / 2) * spacing[1]], axis=-1)
        @ turn[:2, :2].T
    )
    x, y = plane[..., 0], plane[..., 1]
    radius = np.hypot(x, y)
    flat = np.zeros((h, w), np.uint8)
    flat[np.hypot(x + outer + 12, y) < 11] = RV
    flat[radius < outer] = MYO
    flat[radius < inner] = LV
    mask = np.broadcast_to(flat, (z, t, h, w)).copy()
    levels = ("basal", "mid", "apical") if z == 3 else ()
    series = Series(
        image=np.zeros(shape, np.float32), affine=affine, mask=mask, levels=levels, phases={"ed": 0}
    )
    return series, np.rad2deg(np.arctan2(y, x)) % 360


@pytest.mark.parametrize("spacing", [(1.25, 1.25, 8.0), (1.0, 1.5, 10.0), (0.8, 0.8, 6.0)])
@pytest.mark.parametrize(("rotate", "tilt"), [(0.0, 0.0), (0.7, 0.4), (-1.9, 1.2)])
def test_a_ring_is_as_thick_as_it_was_drawn(spacing, rotate, tilt):
    series, _ = ring(18, 27, (3, 1, 100, 100), spacing, rotate, tilt)
    found = thickness_mm(series, 0)
    assert set(found) == set(SEGMENT_NAMES)
    assert all(value == pytest.approx(9.0, abs=0.35) for value in found.values())


@pytest.mark.parametrize("to_apex", [1, -1])
def test_segments_lie_where_the_guideline_draws_them(to_apex):
    """Septum towards the right ventricle; seen from the apex anterior, lateral, inferior and septum go clockwise."""
    series, degrees = ring(18, 27, tilt=0.4)
    if to_apex < 0:
        series = replace(series, levels=series.levels[::-1])
    # In this frame the septum lies at 180 degrees; with slices going up, inferior is where the cross product points.
    assert walls_at(series, degrees, inferior=270 if to_apex > 0 else 90)


@pytest.mark.parametrize("levels", [("basal", "mid", "apical"), ("apical", "mid", "basal"), ()])
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, -1, 1), (-1, -1, -1), (1, 1, -1)])
def test_pictures_without_orientation_are_read_as_a_scanner_shows_them(levels, signs):
    """Septum left, anterior on top, whatever the order of the slices and the made-up axes."""
    series, degrees = ring(18, 27)
    lost = replace(series, levels=levels, affine=series.affine @ np.diag([*signs, 1.0]))
    assert walls_at(lost, degrees, inferior=90)  # rows, and so degrees, go down


def test_a_heart_has_the_same_segments_with_and_without_its_orientation():
    source = PhantomSource(count=6, seed=3, size=96, slices=8, frames=4, spacing_mm=(2.0, 2.0))
    for study_id in source.study_ids():
        sax = source.load(study_id).series["sax"]
        whole = thickness_mm(sax, sax.phases["ed"])
        assert len(whole) > 10
        for made_up in ((-2.0, -2.0, 10.0), (2.0, 2.0, 10.0)):
            lost = replace(sax, affine=np.diag([*made_up, 1.0]))
            assert thickness_mm(lost, sax.phases["ed"]) == pytest.approx(whole, abs=0.2)


def walls_at(series, degrees, inferior):
    """Whether a scar in each wall of the apical slice is found in the segment of its name."""
    thick = {}
    for name, at in (
        ("inferior", inferior),
        ("lateral", 0),
        ("septal", 180),
        ("anterior", (inferior + 180) % 360),
    ):
        mask = series.mask.copy()
        near = np.abs((degrees - at + 180) % 360 - 180) < 20
        mask[:, 0][(mask[:, 0] == MYO) & near[None]] = SCAR
        share = transmurality_percent(replace(series, mask=mask))
        apical = {segment: share[segment] for segment in CENTRES["apical"]}
        thick[name] = max(apical, key=apical.get)
    return {name: SEGMENT_NAMES[segment][0].split()[1] for name, segment in thick.items()} == {
        name: name for name in ("inferior", "lateral", "septal", "anterior")
    }


def test_thickening_follows_the_same_piece_of_wall():
    before, _ = ring(20, 28)
    after, _ = ring(14, 25)
    both = replace(
        before,
        mask=np.concatenate([before.mask, after.mask], axis=1),
        image=np.zeros((3, 2, 80, 80), np.float32),
        phases={"ed": 0, "es": 1},
    )
    found = thickening_percent(both, 0, 1)
    assert all(value == pytest.approx(100 * (11 - 8) / 8, abs=8) for value in found.values())


def test_scar_is_weighed_and_found_in_its_segment():
    series, degrees = ring(18, 27, (3, 1, 120, 120), (0.8, 0.8, 8.0))
    mask = series.mask.copy()
    inside = np.abs((degrees - 180 + 180) % 360 - 180) < 45  # the apical septum is a quarter
    mask[2, 0][(mask[2, 0] == MYO) & inside] = SCAR
    mask[2, 0, :60][mask[2, 0, :60] == SCAR] = NO_REFLOW
    series = replace(series, mask=mask)
    share = transmurality_percent(series)
    assert share[14] == pytest.approx(100, abs=3)
    assert max(value for segment, value in share.items() if segment != 14) < 3
    found = quantify_scar(series).values
    area_mm2 = np.pi * (27**2 - 18**2)
    assert found["scar_share_percent"] == pytest.approx(100 / 12, rel=0.03)
    assert found["scar_mass_g"] == pytest.approx(area_mm2 / 4 * 8 / 1000 * 1.05, rel=0.03)
    assert quantify(series).values["lv_mass_g"] == pytest.approx(
        3 * area_mm2 * 8 / 1000 * 1.05, rel=0.02
    )
    no_right = replace(series, mask=np.where(series.mask == RV, 0, series.mask).astype(np.uint8))
    assert transmurality_percent(no_right) == {}
    # The short axis of the same study, of another size, turned and tilted, tells where the right ventricle lies.
    cine, _ = ring(18, 27, (5, 1, 90, 100), (1.1, 1.1, 9.0), rotate=0.7, tilt=0.1)
    assert transmurality_percent(no_right, septum=septum_direction(cine, 0)) == pytest.approx(
        share, abs=3
    )
    assert septum_direction(no_right, 0) is None


def test_an_open_wall_has_no_segments():
    """At the outflow tract the wall does not go around, and its thickness is not what the areas say."""
    series, degrees = ring(18, 27)
    mask = series.mask.copy()
    mask[0, 0][(mask[0, 0] == MYO) & (degrees < 60)] = 0
    assert {one.slice for one in sectors(replace(series, mask=mask), 0)} == {1, 2}


@pytest.mark.parametrize("slices", [1, 2])
def test_few_slices_give_no_number(slices):
    series, _ = ring(18, 27, (slices, 1, 80, 80))
    found = quantify(series)
    assert not found.values
    for name in ("lvedv_ml", "lvesv_ml", "lvef_percent", "rvedv_ml", "lv_mass_g"):
        assert "slices, at least 3" in found.not_computable[name]
    assert set(quantify_scar(series).not_computable) == {"scar_mass_g", "scar_share_percent"}


@pytest.mark.parametrize("elsewhere", [0, 255])
def test_one_slice_with_the_structure_among_many_gives_no_number(elsewhere):
    series, _ = ring(18, 27, (10, 1, 80, 80))
    mask = series.mask.copy()
    mask[:5], mask[6:] = elsewhere, elsewhere
    found = quantify(replace(series, mask=mask))
    assert not found.values
    assert (
        found.not_computable["lvedv_ml"]
        == "the structure is in 1 of the slices, at least 3 are needed"
    )
    assert set(quantify_scar(replace(series, mask=mask)).not_computable) == {
        "scar_mass_g",
        "scar_share_percent",
    }


def test_each_phase_has_its_own_reason():
    series, _ = ring(18, 27, (5, 2, 80, 80))
    mask = series.mask.copy()
    mask[2, 0] = 0
    mask[:, 1] = 0
    found = quantify(replace(series, mask=mask, phases={"ed": 0, "es": 1}))
    assert found.not_computable["lvedv_ml"] == "slice 2 between others lacks it"
    assert found.not_computable["lvesv_ml"] == "the structure is in no slice"
    assert found.not_computable["lvef_percent"] == "slice 2 between others lacks it"


@pytest.mark.parametrize(("value", "reason"), [(0, "lacks it"), (255, "is not annotated")])
def test_a_slice_missing_between_others_gives_no_number(value, reason):
    series, _ = ring(18, 27, (5, 1, 80, 80))
    series = replace(series, levels=())
    mask = series.mask.copy()
    mask[2] = value
    found = quantify(replace(series, mask=mask))
    assert found.not_computable["lvedv_ml"] == f"slice 2 between others {reason}"
    assert not found.values
    outside = series.mask.copy()
    outside[4] = value  # beyond the apex there is nothing, or nobody knows
    found = quantify(replace(series, mask=outside))
    assert ("lvedv_ml" in found.values) == (value == 0)
    assert (
        value == 0
        or found.not_computable["lvedv_ml"] == "slice 4 beside the structure is not annotated"
    )


def test_a_structure_that_runs_into_the_unknown_gives_no_number():
    """What is not annotated far away does not matter, beside the structure it does."""
    series, _ = ring(18, 27, (5, 1, 96, 96))
    series, mask = replace(series, levels=()), series.mask.copy()
    mask[:, :, :, 84:] = 255
    assert quantify(replace(series, mask=mask)).values == quantify(series).values
    mask[3, 0][(mask[3, 0] == RV) & (np.mgrid[:96, :96][1] < 12)] = 255
    found = quantify(replace(series, mask=mask))
    assert (
        found.not_computable["rvedv_ml"]
        == "in slice 3 the structure runs into what is not annotated"
    )
    assert found.values["lvedv_ml"] == quantify(series).values["lvedv_ml"]
    across = series.mask.copy()
    across[4, 0, 30:50, 30:50] = 255  # what is beyond the last slice but one is not known
    across[4, 0][across[4, 0] != 255] = 0
    assert "runs into" in quantify(replace(series, mask=across)).not_computable["lvedv_ml"]


def test_a_frame_that_cannot_be_counted_is_not_passed_over_for_another():
    """The largest ventricle is that of end-diastole although a part of it is not known: there is no volume then."""
    whole = cine()
    mask = whole.mask.copy()
    mask[4, 0][(mask[4, 0] == LV) & (np.mgrid[:80, :80][1] < 30)] = 255
    found = quantify(replace(whole, mask=mask))
    assert found.phases["ed"] == 0
    assert "runs into" in found.not_computable["lvedv_ml"]
    assert "lvesv_ml" in found.values
    assert "lvef_percent" not in found.values
    assert np.flatnonzero(np.isnan(found.curves_ml["lv"])).tolist() == [0]


def test_one_phase_alone_gives_a_volume_and_no_ejection_fraction():
    series, _ = ring(18, 27)
    found = quantify(series)
    assert found.values["lvedv_ml"] == pytest.approx(3 * np.pi * 18**2 * 8 / 1000, rel=0.02)
    assert found.not_computable["lvef_percent"] == "no frame is known to be es"


def test_slices_unevenly_apart_count_as_they_lie():
    series, _ = ring(18, 27)
    even, uneven = quantify(series), quantify(replace(series, slice_places_mm=(0.0, 8.0, 20.0)))
    # Half way to the neighbours, and as far outwards as inwards: 8, 10 and 12 mm in place of 8 each.
    assert uneven.values["lvedv_ml"] == pytest.approx(
        even.values["lvedv_ml"] * (8 + 10 + 12) / 24, rel=1e-6
    )


@pytest.mark.parametrize("at", range(6))
def test_a_stack_that_lost_a_slice_gives_no_number(at):
    """Where the ventricle is, or next to it; far from it nothing is missed."""
    series, _ = ring(18, 27, (8, 1, 80, 80))
    mask = series.mask.copy()
    mask[5:] = 0
    places = np.arange(8) * 8.0
    places[at + 1 :] += 8.0
    series = replace(series, mask=mask, levels=(), slice_places_mm=tuple(places))
    found = quantify(series)
    if at < 5:
        assert (
            found.not_computable["lvedv_ml"]
            == f"a slice is missing: 16.0 mm lie between slices {at} and {at + 1}"
        )
        assert not found.values
    else:
        assert found.values["lvedv_ml"] == pytest.approx(5 * np.pi * 18**2 * 8 / 1000, rel=0.02)


@pytest.mark.parametrize(
    ("lost", "reason"),
    [
        ("mask", "slice 2 between others lacks it"),
        ("place", "a slice is missing: 16.0 mm lie between slices 2 and 3"),
    ],
)
def test_a_wall_that_lost_a_slice_has_no_segments(lost, reason, tmp_path):
    whole, _ = ring(18, 27, (6, 1, 80, 80))
    assert len(summarize_ventricles(whole, {}, tmp_path)["wall_thickness_mm"]) == 16
    assert len(summarize_scar(whole, ("myo", "scar"), tmp_path)["scar_by_segment_percent"]) == 16
    mask = whole.mask.copy()
    mask[2] = 0
    series = (
        replace(whole, mask=mask)
        if lost == "mask"
        else replace(whole, slice_places_mm=(0.0, 8.0, 16.0, 32.0, 40.0, 48.0))
    )
    for found, names in (
        (summarize_ventricles(series, {}, tmp_path / "lost"), ("wall_thickness_mm", "lvedv_ml")),
        (
            summarize_scar(series, ("myo", "scar"), tmp_path / "lost"),
            ("scar_mass_g", "scar_share_percent", "scar_by_segment_percent"),
        ),
    ):
        assert {name: found["not_computable"].get(name) for name in names} == dict.fromkeys(
            names, reason
        )
        assert not set(found) & set(names)
    assert not {"wall_thickness.png", "scar.png"} & {
        path.name for path in (tmp_path / "lost").iterdir()
    }


def test_a_slice_lost_at_end_systole_leaves_segments_at_end_diastole(tmp_path):
    series = cine()
    mask = series.mask.copy()
    mask[3, 1] = 0
    found = summarize_ventricles(replace(series, mask=mask), {}, tmp_path)
    assert len(found["wall_thickness_mm"]) == 16
    for name in ("wall_thickness_es_mm", "wall_thickening_percent"):
        assert name not in found
        assert found["not_computable"][name] == "slice 3 between others lacks it"


def test_rates_of_a_known_curve():
    times_ms = np.arange(40) * 20.0
    phase = 2 * np.pi * times_ms / 800
    curve = 100 + 40 * np.cos(phase)
    rates = rates_ml_per_s(curve, tuple(times_ms))
    steepest = 40 * 2 * np.pi / 0.8
    assert rates["peak_ejection_rate_ml_per_s"] == pytest.approx(steepest, rel=0.01)
    assert rates["peak_filling_rate_ml_per_s"] == pytest.approx(steepest, rel=0.01)


def test_rates_do_not_close_a_cycle_that_the_cine_leaves_open():
    """Two thirds of a cycle: the step from the last volume back to the first is not taken for filling."""
    times_ms = tuple(np.arange(0, 600, 20.0))
    curve = 100 + 40 * np.cos(2 * np.pi * np.array(times_ms) / 900)
    steepest = 40 * 2 * np.pi / 0.9
    rates = rates_ml_per_s(curve, times_ms)
    assert rates["peak_ejection_rate_ml_per_s"] == pytest.approx(steepest, rel=0.01)
    assert rates["peak_filling_rate_ml_per_s"] < steepest
    falling = rates_ml_per_s(curve[:20], times_ms[:20])
    assert list(falling) == ["peak_ejection_rate_ml_per_s"]


def cine(frames=4, slices=8, times=(0.0, 200.0, 400.0, 600.0)):
    """A ventricle that shrinks and grows again, in equal slices."""
    stacks = [ring(inner, inner + 8, (slices, 1, 80, 80))[0] for inner in (18, 13, 15, 17)[:frames]]
    mask = np.concatenate([one.mask for one in stacks], axis=1)
    return replace(
        stacks[0],
        mask=mask,
        image=np.zeros(mask.shape, np.float32),
        frame_times_ms=times,
        phases={},
        levels=("basal",) * 3 + ("mid",) * 3 + ("apical",) * 2,
    )


def test_a_frame_that_is_annotated_in_part_is_no_end_systole():
    whole = cine()
    mask = whole.mask.copy()
    mask[2:, 3] = 255
    found = quantify(replace(whole, mask=mask))
    assert found.phases == {"ed": 0, "es": 1}
    assert np.isnan(found.curves_ml["lv"][3])
    assert found.values["lvef_percent"] == pytest.approx(quantify(whole).values["lvef_percent"])
    told = quantify(replace(whole, mask=mask, phases={"ed": 0, "es": 3}))
    assert "lvef_percent" not in told.values
    assert told.not_computable["lvef_percent"] == "slice 2 is not annotated in this frame"


def test_rates_need_every_frame_and_their_times():
    whole = cine()
    values = quantify(whole).values
    assert values["lv_peak_ejection_rate_ml_per_s"] > 0
    assert not {"rv_peak_ejection_rate_ml_per_s"} & set(
        values
    )  # the drawn right ventricle does not change
    swapped = np.where(whole.mask == LV, RV, np.where(whole.mask == RV, LV, whole.mask)).astype(
        np.uint8
    )
    other = quantify(replace(whole, mask=swapped)).values
    for name in ("peak_ejection_rate_ml_per_s", "peak_filling_rate_ml_per_s"):
        assert other[f"rv_{name}"] == pytest.approx(values[f"lv_{name}"])
    lost = whole.mask.copy()
    lost[:, 2][lost[:, 2] == LV] = 0
    for series, reason in (
        (replace(whole, mask=lost), "frame 2: the structure is in no slice"),
        (replace(whole, frame_times_ms=None), "the times of at least three frames are needed"),
        (replace(whole, frame_times_ms=(0.0, 0.0, 30.0, 60.0)), "the frame times do not ascend"),
    ):
        found = quantify(series)
        assert found.not_computable["lv_peak_filling_rate_ml_per_s"] == reason
        assert "lv_peak_filling_rate_ml_per_s" not in found.values


def test_thickening_is_that_of_slices_that_show_both_times():
    thin, thick = (ring(20, 20 + wall, (3, 1, 80, 80))[0].mask for wall in (4, 8))
    thin_es, thick_es = (ring(17, 17 + 1.25 * wall, (3, 1, 80, 80))[0].mask for wall in (4, 8))
    before, after = (
        np.concatenate([thin[:1], thick[:2]]),
        np.concatenate([thin_es[:1], thick_es[:2]]),
    )
    after[0] = 0  # the basal slice has become the atrium
    series = replace(
        ring(20, 28)[0],
        mask=np.concatenate([before, after], axis=1),
        levels=("basal", "basal", "mid"),
        image=np.zeros((3, 2, 80, 80), np.float32),
        phases={"ed": 0, "es": 1},
    )
    found = thickening_percent(series, 0, 1)
    assert all(found[segment] == pytest.approx(25, abs=9) for segment in range(1, 7))


def test_where_levels_do_not_tell_the_order_of_the_slices_the_affine_does():
    oblique, degrees = ring(18, 27, tilt=0.4)
    mask = oblique.mask.copy()
    mask[:, 0][(mask[:, 0] == MYO) & (np.abs(degrees - 90) < 20)[None]] = SCAR
    oblique = replace(oblique, mask=mask)
    one, two = (
        transmurality_percent(replace(own, levels=("mid",) * 3))
        for own in (oblique, flip_slices(oblique))
    )
    assert one == pytest.approx(two)
    assert set(one) == set(range(7, 13))
    # Slices go up, so the apex is against them; that way crossed with the right ventricle's, -x, is +y, at 90 degrees.
    assert max(one, key=one.get) == 10


def test_a_speck_of_cavity_outside_the_wall_changes_nothing():
    series, _ = ring(18, 27)
    mask = series.mask.copy()
    mask[:, :, 2, 2] = LV
    assert thickness_mm(replace(series, mask=mask), 0).keys() == thickness_mm(series, 0).keys()


def test_values_by_body_surface_need_height_and_weight():
    assert body_surface_area_m2(180, 80) == pytest.approx(2.0)
    series, _ = ring(18, 27)
    found = quantify(series, 180, 80).values
    assert found["lvedv_ml_per_m2"] == pytest.approx(found["lvedv_ml"] / 2)
    assert found["lv_mass_g_per_m2"] == pytest.approx(found["lv_mass_g"] / 2)
    assert not any("per_m2" in name for name in quantify(series, 180, None).values)


def test_levels_are_thirds_from_the_wider_end():
    series, _ = ring(18, 27, (6, 1, 80, 80))
    mask = series.mask.copy()
    mask[4:] = np.where(mask[4:] == RV, 0, mask[4:])  # the right ventricle ends before the apex
    series = replace(series, mask=mask, levels=())
    assert level_of_slices(series, 0) == ["basal", "basal", "mid", "mid", "apical", "apical"]
    assert level_of_slices(replace(series, mask=mask[::-1]), 0)[0] == "apical"
    assert level_of_slices(replace(series, mask=np.zeros_like(mask)), 0) == [None] * 6
    two = np.concatenate([mask[:2], np.zeros_like(mask[2:])])
    assert level_of_slices(replace(series, mask=two), 0) == [None] * 6


def test_pictures_are_written(tmp_path):
    source = PhantomSource(count=2, seed=3, size=64, slices=6, frames=6, spacing_mm=(3.0, 3.0))
    sax = source.load(source.study_ids()[1]).series["sax"]
    volume_curves(quantify(sax), sax.frame_times_ms, tmp_path / "curve.png")
    bulls_eye(
        thickness_mm(sax, sax.phases["ed"]), tmp_path / "thickness.png", "thickness (mm)", (4, 14)
    )
    for name in ("cine.gif", "cine.webp"):
        contour_cine(sax, tmp_path / name)
        with Image.open(tmp_path / name) as animation:
            assert animation.n_frames == 6
    assert (tmp_path / "curve.png").stat().st_size > 5000


def place_of(path, color, within=1.0, away=30):
    """Middle (row, column) of the pixels of a colour, over the height and the width; what lies right is left out."""
    pixels = np.asarray(Image.open(path).convert("RGB"), dtype=float)
    near = np.abs(pixels - np.array(color)).max(axis=-1) < away
    places = np.argwhere(near[:, : int(within * near.shape[1])])
    return (places.min(axis=0) + places.max(axis=0)) / 2 / near.shape


def test_a_bulls_eye_has_anterior_on_top_and_the_septum_left(tmp_path):
    path, yellow = (
        tmp_path / "eye.png",
        (253, 231, 37),
    )  # the last colour of the scale, which stands right of it
    bulls_eye(dict.fromkeys(SEGMENT_NAMES, 1.0), path, "all", (0, 1))
    centre = place_of(path, yellow, 0.75)
    for segments, way in (
        ((1, 7, 13), (-1, 0)),
        ((4, 10, 15), (1, 0)),
        ((2, 3, 8, 9, 14), (0, -1)),
        ((5, 6, 11, 12, 16), (0, 1)),
        ((2, 8), (-1, -1)),
        ((5, 11), (1, 1)),
    ):
        bulls_eye(dict.fromkeys(segments, 1.0), path, "some", (0, 1))
        moved = place_of(path, yellow, 0.75) - centre
        assert [0 if abs(one) < 0.03 else np.sign(one) for one in moved] == list(way), segments


def test_contours_lie_where_the_masks_are(tmp_path):
    mask = np.zeros((1, 2, 48, 48), np.uint8)
    mask[0, 0, 6:14, 30:42] = LV
    mask[0, 1, 34:44, 4:16] = LV
    contour_cine(
        Series(image=np.zeros(mask.shape, np.float32), affine=np.eye(4), mask=mask),
        tmp_path / "cine.gif",
    )
    with Image.open(tmp_path / "cine.gif") as animation:
        for frame, place in ((0, (9.5, 35.5)), (1, (38.5, 9.5))):
            animation.seek(frame)
            animation.convert("RGB").save(tmp_path / "frame.png")
            found = place_of(tmp_path / "frame.png", (230, 25, 75), away=90)  # thin lines are paler
            assert found == pytest.approx((np.array(place) + 0.5) / 48, abs=0.05)
