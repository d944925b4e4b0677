"""The comparison with DynUNet: its plans, what it is shown, and what is kept of both."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from cmrvlm.metrics.statistic import Mean
from cmrvlm.study.study import Series
from cmrvlm.study.vocabulary import NOT_ANNOTATED, STRUCTURES
from data_modules.sources.phantom.source import PhantomSource
from experiments.segmentation import dynunet
from experiments.segmentation.data import DATA_SETS
from experiments.segmentation.dynunet import Baseline, planned
from experiments.segmentation.results import Fold, keep
from experiments.segmentation.scores import difference


@pytest.mark.parametrize(
    ("size", "spacing_mm", "strides", "flat"),
    [
        # ACDC at the size and spacing that nnU-Net takes in 3D; strides and kernels worked out by its rules.
        ((20, 256, 224), (5.0, 1.56, 1.56), ["111", "122", "222", "222", "122", "122"], 1),
        ((10, 128, 128), (10.0, 1.5, 1.5), ["111", "122", "122", "222", "122", "122"], 2),
        ((7, 128, 128), (10.0, 1.0, 1.0), ["111", "122", "122", "122", "122", "122"], 3),
        ((64, 64, 64), (1.0, 1.0, 1.0), ["111", "222", "222", "222", "222"], 0),
        ((128, 128), (1.5, 1.5), ["11", "22", "22", "22", "22", "22"], 0),
    ],
)
def test_plans_follow_the_rules_of_nnunet(size, spacing_mm, strides, flat):
    kernels, found = planned(size, spacing_mm)
    assert ["".join(map(str, level)) for level in found] == strides
    assert kernels == [[1, 3, 3]] * flat + [[3] * len(size)] * (len(strides) - flat)


def stack(slices, side=64):
    rng = np.random.default_rng(slices)
    mask = np.zeros((slices, 2, side, side), np.uint8)
    mask[:, 1, 8:20, 8:20] = STRUCTURES["lv"]
    mask[:, 0] = NOT_ANNOTATED
    return Series(
        image=rng.normal(size=mask.shape).astype(np.float32),
        affine=np.diag([1.5, 1.5, 10.0, 1.0]),
        mask=mask,
    )


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("slices", [3, 7, 9, 13])
def test_a_stack_is_padded_in_training_as_at_test(dimensions, slices, monkeypatch):
    """However many slices it has, the network sees patches of one depth, with the stack in their middle."""
    baseline = Baseline(dimensions, (7, 64, 64), (10.0, 1.5, 1.5), ["lv", "rv"])
    series = stack(slices)
    frame = Series(image=series.image[:, 1:], affine=series.affine, mask=series.mask[:, 1:])
    images, classes = baseline._batch(iter([frame] * 4))
    assert images.shape == classes.shape
    assert set(classes.unique().tolist()) == {0, 1}
    seen, forward = [], type(baseline.network).forward

    def look(self, x):
        seen.append(x)
        return forward(self, x)

    monkeypatch.setattr(type(baseline.network), "forward", look)
    found = baseline.label(series)
    assert found.shape == series.image.shape
    assert (found[:, 0] == NOT_ANNOTATED).all()
    assert set(np.unique(found[:, 1])) <= {0, STRUCTURES["lv"], STRUCTURES["rv"]}
    if dimensions == 3:
        assert images.shape[2:] == (7, 64, 64)
        assert all(one.shape[2:] == (7, 64, 64) for one in seen)
        if slices <= 7:
            assert torch.equal(seen[0], images[:1])


@pytest.mark.slow
def test_a_baseline_learns_what_it_is_shown(monkeypatch):
    """Until the time is over, with a clock that goes on by a second a step."""
    monkeypatch.setattr(dynunet.time, "monotonic", itertools.count().__next__)
    baseline = Baseline(2, (7, 64, 64), (10.0, 1.5, 1.5), ["lv"], "adamw")
    series = stack(7)
    series.image[:, 1] = (series.mask[:, 1] == 1) + 0.1 * series.image[:, 1]
    frame = Series(image=series.image[:3, 1:], affine=series.affine, mask=series.mask[:3, 1:])

    def endless():
        while True:
            yield frame

    curve = baseline.train(endless(), minutes=0.6)
    assert len(curve) == 3
    assert curve[-1][1] < curve[0][1]
    found = baseline.label(series)[:, 1]
    assert (found == series.mask[:, 1]).mean() > 0.98


@pytest.fixture(scope="module")
def fold():
    """Three phantoms, of which one model says the truth and others ever less of it."""
    source = PhantomSource(3, size=64, slices=8, frames=2, spacing_mm=(3.0, 3.0))
    studies = [source.load(one) for one in source.study_ids()]
    truth = {one.study_id: one.series["sax"].mask for one in studies}
    shifted = {name: np.roll(mask, 1, axis=3) for name, mask in truth.items()}
    further = {name: np.roll(mask, 3, axis=3) for name, mask in truth.items()}
    maps = {"ours": truth, "dynunet_2d": further, "dynunet_3d": shifted}
    curves = {name: [(0.1, 1.0), (0.2, 0.5), (0.3, 0.25)] for name in maps}
    return Fold(studies, studies, maps, curves, dict.fromkeys(maps, 0.3))


def test_what_is_kept_of_a_comparison(fold, tmp_path):
    """The truth has Dice 1, no bias and no distance; the better baseline counts; other data sets stay."""
    (tmp_path / "metrics.json").write_text(json.dumps({"acdc": {"ours": 1}}))
    keep("phantom", DATA_SETS["phantom"], [fold, fold], 0.3, tmp_path)
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert content["acdc"] == {"ours": 1}
    found = content["phantom"]
    for name, value in (
        ("lv_ed_dice", 1),
        ("lv_es_dice", 1),
        ("myo_dice", 1),
        ("rv_dice", 1),
        ("lv_hd95_mm", 0),
        ("lvef_bias_points", 0),
        ("lvedv_bias_ml", 0),
        ("lv_mass_mae_g", 0),
    ):
        assert found["ours"][name]["value"] == value, name
    assert found["dynunet_2d"]["lv_dice"]["value"] < found["dynunet_3d"]["lv_dice"]["value"] < 1
    assert found["dynunet"] == found["dynunet_3d"] | {"plan": "dynunet_3d"}
    assert found["dynunet"]["lv_hd95_mm"]["value"] == pytest.approx(3.0, abs=0.1)  # one pixel
    less = found["ours_less_dynunet_3d"]["lv_dice"]
    assert less["value"] == pytest.approx(1 - found["dynunet_3d"]["lv_dice"]["value"], abs=1e-4)
    assert less["low"] <= less["value"] <= less["high"]
    assert found["training"]["test_studies"] == 6
    assert "| lv_ed_dice | 1.000 |" in (tmp_path / "table_phantom.md").read_text()
    shown = (tmp_path / "summary_phantom.md").read_text()
    assert "| 6 held out | ours | DynUNet 2D | DynUNet 3D | ours less DynUNet 2D |" in shown
    assert "| LVEF, points | +0.0 (0.0 to 0.0) |" in shown
    less = found["ours_less_dynunet_2d"]["rv_dice"]
    (line,) = (one for one in shown.splitlines() if one.startswith("| RV Dice |"))
    assert line.endswith(f"| {less['value']:+.3f} ({less['low']:+.3f} to {less['high']:+.3f}) |")
    for picture in ("curves_phantom.png", "cases_phantom.png", "wall_thickness_phantom.png"):
        assert (tmp_path / picture).is_file()


def test_models_that_find_next_to_nothing_are_told_as_such(fold, tmp_path):
    """One patient with an ejection fraction has a bias without limits, none has neither; nothing else is lost."""
    first = fold.studies[0].study_id
    nothing = {name: np.zeros_like(mask) for name, mask in fold.maps["ours"].items()}
    maps = {"ours": {**nothing, first: fold.maps["ours"][first]}, "dynunet_2d": nothing}
    curves, minutes = ({name: one[name] for name in maps} for one in (fold.curves, fold.minutes))
    keep(
        "phantom",
        DATA_SETS["phantom"],
        [replace(fold, maps=maps, curves=curves, minutes=minutes)],
        0.3,
        tmp_path,
    )
    found = json.loads((tmp_path / "metrics.json").read_text())["phantom"]
    assert found["ours"]["lv_dice"]["value"] == pytest.approx(1 / 3, abs=1e-4)
    assert found["dynunet_2d"]["lv_dice"]["value"] == 0
    assert (
        "| LVEF, points | +0.0 (no limits), n 1 | undefined |  |"
        in (tmp_path / "summary_phantom.md").read_text()
    )
    assert (tmp_path / "cases_phantom.png").is_file()


def test_means_without_the_folds_on_which_settings_were_chosen(fold, tmp_path):
    folds = [replace(fold, studies=[one], native=[one]) for one in fold.studies]
    folds[-1] = replace(folds[-1], maps={**fold.maps, "dynunet_3d": fold.maps["ours"]})
    folds = [
        replace(
            one,
            maps={
                model: {one.studies[0].study_id: own[one.studies[0].study_id]}
                for model, own in one.maps.items()
            },
        )
        for one in folds
    ]
    keep("phantom", DATA_SETS["phantom"], folds, 0.3, tmp_path)
    found = json.loads((tmp_path / "metrics.json").read_text())["phantom"]
    assert (
        found["but_first_two_folds"]["dynunet_3d"]["lv_dice"]
        == 1
        > found["dynunet_3d"]["lv_dice"]["value"]
    )
    assert found["but_first_two_folds"]["dynunet_2d"]["lv_dice"] < 1


def test_differences_are_those_of_patients_with_both(fold):
    one, other = Mean([0.9, None, 0.5]), Mean([0.6, 0.7, 0.4])
    found = difference(one, other, fold.studies)
    assert found["value"] == pytest.approx(0.2)
    assert found["n"] == 2
    assert found["low"] >= 0.1
    assert found["high"] <= 0.3
    assert (
        difference(Mean([None, 1.0, None]), Mean([1.0, None, 1.0]), fold.studies)["value"] is None
    )
