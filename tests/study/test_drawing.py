"""Pictures show every structure of a mask, each named in its colour."""

import io

import matplotlib.colors
import numpy as np
import pytest
from PIL import Image

from cmrvlm.inference.panels import mask_panel, study_panel
from cmrvlm.instructions.question import Region, whole_views
from cmrvlm.study.structures import STRUCTURE_TABLE
from cmrvlm.study.study import Series, Study
from data_modules.checking.page import montage
from tests.records import an_answer, an_instruction

COLORS = {name: one.color for name, one in STRUCTURE_TABLE.items()}
SETS = [("lv", "myo", "rv"), ("lv", "myo", "scar", "no_reflow"), ("lv", "la", "ra"), ()]


def series_with(names):
    """One slice with a patch of each structure in a row."""
    mask = np.zeros((1, 1, 24, 48), np.uint8)
    for place, name in enumerate(names):
        mask[0, 0, 4:20, 2 + 11 * place : 10 + 11 * place] = STRUCTURE_TABLE[name].value
    image = np.random.default_rng(0).uniform(0, 50, mask.shape).astype(np.float32)
    return Series(image=image, affine=np.diag([1.5, 1.5, 8.0, 1.0]), mask=mask)


def colors_in(picture):
    """Names of the structures whose very colour fills some of a picture, as in a legend."""
    pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    return {
        name
        for name, color in COLORS.items()
        if (np.abs(pixels - 255 * np.array(matplotlib.colors.to_rgb(color))) < 1.5).all(1).sum()
        > 20
    }


@pytest.mark.parametrize("names", SETS, ids="+".join)
def test_a_montage_shows_every_structure_and_no_other(names):
    study = Study("a", "a", {"lge": series_with(names)})
    assert colors_in(Image.open(io.BytesIO(montage(study)))) == set(names)


@pytest.mark.parametrize("names", SETS, ids="+".join)
def test_a_panel_of_a_study_shows_every_structure(tmp_path, names):
    study_panel(series_with(names), tmp_path / "panel.png")
    assert colors_in(Image.open(tmp_path / "panel.png")) == set(names)


class FakeBatch:
    """Images of one study with two series of other sizes."""

    owners = np.zeros(9, int)

    def __init__(self, monkeypatch, images):
        monkeypatch.setattr(
            "cmrvlm.inference.panels._image_of", lambda batch, owner, sequence: images[sequence]
        )


def test_masks_of_two_series_are_two_columns(tmp_path, monkeypatch):
    drawn = {"sax": ("lv", "rv"), "lge": ("scar", "no_reflow")}
    images, answers = {}, []
    for slices, (sequence, names) in enumerate(drawn.items(), start=1):
        one = series_with(names)
        mask = np.repeat(one.mask, slices, axis=0)
        images[sequence] = np.repeat(one.image, slices, axis=0)
        for name in names:
            value = STRUCTURE_TABLE[name].value
            region = Region(sequence, name, (value,), (0,), (None,))
            instruction = an_instruction(region=region, views=whole_views([sequence]))
            answers.append(an_answer(instruction, "x", mask == value, mask))
    mask_panel([(FakeBatch(monkeypatch, images), answers)], tmp_path / "panel.png")
    assert colors_in(Image.open(tmp_path / "panel.png")) == {"lv", "rv", "scar", "no_reflow"}
