import numpy as np
import pytest

from cmrvlm.errors import CmrvlmError
from cmrvlm.study.study import Series, Study, check_images

AFFINE = np.diag([1.25, 1.5, 10.0, 1.0])  # w, h, z in mm


def series(**changes):
    return Series(**{"image": np.zeros((3, 2, 8, 6), np.float32), "affine": AFFINE} | changes)


def test_spacing_and_volume_come_from_the_affine():
    assert series().spacing_mm == (10.0, 1.5, 1.25)
    assert series().voxel_volume_ml == pytest.approx(0.01875)  # 1000 such voxels are 18.75 ml


def test_volume_of_an_oblique_affine_is_the_determinant():
    turn = np.array([[0.6, -0.8, 0], [0.8, 0.6, 0], [0, 0, 1]])
    affine = AFFINE.copy()
    affine[:3, :3] = turn @ affine[:3, :3]
    assert series(affine=affine).voxel_volume_ml == pytest.approx(0.01875)
    assert series(affine=affine).spacing_mm == pytest.approx((10.0, 1.5, 1.25))


def test_slices_that_are_not_equally_far_apart_have_their_own_heights():
    affine = np.diag([1.25, 1.5, 12.5, 1.0])  # the mean of 10 and 15 mm
    one = series(affine=affine, slice_places_mm=(0.0, 10.0, 25.0))
    assert one.slice_volumes_ml == pytest.approx(np.array([10.0, 12.5, 15.0]) * 1.25 * 1.5 / 1000)
    assert series().slice_volumes_ml == pytest.approx([0.01875] * 3)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"image": np.zeros((3, 8, 6))}, "image"),
        ({"mask": np.zeros((3, 2, 8, 5), np.uint8)}, "mask"),
        ({"affine": np.eye(3)}, "affine"),
        ({"levels": ("basal",)}, "levels"),
        ({"phases": {"ed": 2}}, "phases"),
        ({"slice_places_mm": (0.0, 10.0)}, "slice_places_mm"),
        ({"slice_places_mm": (0.0, 10.0, 10.0)}, "slice_places_mm"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(changes, field):
    with pytest.raises(CmrvlmError, match=f"'{field}'"):
        series(**changes)


def test_annotated_frames_need_a_known_foreground():
    mask = np.full((3, 4, 8, 6), 255, np.uint8)
    mask[:, 1] = 0
    mask[:, 2] = 0
    mask[1, 2, 4, 4] = 1
    image = np.zeros((3, 4, 8, 6), np.float32)
    assert Series(image=image, affine=AFFINE, mask=mask).annotated_frames() == (2,)
    assert Series(image=image, affine=AFFINE).annotated_frames() == ()


def test_images_without_contrast_are_refused_cropped_hearts_not():
    rng = np.random.default_rng(0)
    for name in ("constant", "one voxel", "a line", "a corner"):
        image = np.full((4, 3, 80, 80), 7, np.float32)
        if name == "one voxel":
            image[1, 1, 40, 40] = 900
        if name == "a line":
            image[2, 1, 40, :40] = 900
        if name == "a corner":
            image[0, 0, :5, :5] = rng.random((5, 5))
        study = Study("exam", "exam", {"lge": Series(image=image, affine=AFFINE)})
        with pytest.raises(CmrvlmError, match=r"'lge'.*exam is empty"):
            check_images(study)
    image = np.zeros((4, 3, 80, 80), np.float32)
    image[..., 30:50, 30:50] = rng.random((4, 3, 20, 20))
    check_images(Study("exam", "exam", {"lge": Series(image=image, affine=AFFINE)}))
