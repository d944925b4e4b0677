import nibabel as nib
import numpy as np
import pytest
from nibabel.processing import resample_from_to

from cmrvlm.transforms.geometry import resample_image, resample_mask, target_grid

RNG = np.random.default_rng(0)


def oblique(spacing=(1.5, 1.25, 8.0), angle=0.4):
    affine = np.eye(4)
    c, s = np.cos(angle), np.sin(angle)
    affine[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.diag(spacing)
    affine[:3, 3] = (10, -20, 30)
    return affine


def test_image_resampling_equals_nibabel():
    data = RNG.random((20, 24, 6)).astype(np.float32)  # x, y, z
    affine = oblique()
    target, shape = target_grid(affine, (6, 24, 20), (8.0, 1.9, 1.7), (6, 18, 16), (2.5, 11.5, 9.5))
    ours = resample_image(data.transpose(2, 1, 0)[:, None], affine, target, shape)[:, 0]
    theirs = resample_from_to(
        nib.Nifti1Image(data, affine), ((shape[2], shape[1], shape[0]), target), order=1
    )
    np.testing.assert_allclose(ours.transpose(2, 1, 0), theirs.get_fdata(), atol=2e-3)


def test_frames_are_moved_alike():
    image = RNG.random((4, 3, 12, 10)).astype(np.float32)
    target, shape = target_grid(
        oblique(), (4, 12, 10), (8.0, 2.0, 2.0), (None, None, None), (1.5, 5.5, 4.5)
    )
    whole = resample_image(image, oblique(), target, shape)
    for frame in range(3):
        alone = resample_image(image[:, frame : frame + 1], oblique(), target, shape)
        np.testing.assert_array_equal(whole[:, frame : frame + 1], alone)


@pytest.mark.parametrize("seed", range(50))
def test_masks_keep_their_values_and_the_image_s_grid(seed):
    rng = np.random.default_rng(seed)
    mask = rng.choice(np.array([0, 1, 3], np.uint8), (5, 2, 17, 13))
    spacing = tuple(rng.uniform(0.7, 3.0, 3))
    target, shape = target_grid(oblique(), (5, 17, 13), spacing, (None, None, None), (2, 8, 6))
    moved = resample_mask(mask, oblique(), target, shape)
    image = resample_image(mask.astype(np.float32), oblique(), target, shape)
    assert moved.shape == image.shape
    assert set(np.unique(moved)) <= {0, 1, 3, 255}


def test_there_and_back_keeps_a_disc():
    y, x = np.mgrid[:64, :64]
    mask = ((y - 30) ** 2 + (x - 34) ** 2 < 15**2).astype(np.uint8)[None, None].repeat(3, 0)
    affine = oblique((1.4, 1.4, 10.0))
    target, shape = target_grid(
        affine, (3, 64, 64), (10.0, 2.0, 2.0), (None, 48, 48), (1, 31.5, 31.5)
    )
    back = resample_mask(resample_mask(mask, affine, target, shape), target, affine, (3, 64, 64))
    both = ((back == 1) & (mask == 1)).sum()
    assert 2 * both / ((back == 1).sum() + mask.sum()) > 0.96


def test_near_equal_spacings_do_not_change_volumes():
    """Discs of any place, from 2.06 to 2 mm: the areas are right on average and each within the rounding of pixels."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:96, :96]
    affine = np.diag([2.06, 2.06, 8, 1.0])
    errors = []
    for _ in range(60):
        middle = (0, *rng.uniform(46, 49, 2))
        target, shape = target_grid(
            affine, (1, 96, 96), (8.0, 2.0, 2.0), (None, None, None), middle
        )
        radius, (cy, cx) = rng.uniform(8, 15), rng.uniform(40, 56, 2)
        mask = ((y - cy) ** 2 + (x - cx) ** 2 < radius**2).astype(np.uint8)[None, None]
        area = (resample_mask(mask, affine, target, shape) == 1).sum() * 4.0
        errors.append(area / (mask.sum() * 2.06**2) - 1)
    assert abs(np.mean(errors)) < 0.01
    assert np.abs(errors).max() < 0.06


def test_outside_the_source_is_zero_and_not_annotated():
    image, mask = np.ones((1, 1, 10, 10), np.float32), np.ones((1, 1, 10, 10), np.uint8)
    affine = np.diag([1.0, 1.0, 5.0, 1.0])
    target, shape = target_grid(affine, (1, 10, 10), (5.0, 1.0, 1.0), (1, 20, 20), (0, 4.5, 4.5))
    assert resample_image(image, affine, target, shape)[0, 0, 0, 0] == 0
    moved = resample_mask(mask, affine, target, shape)
    assert moved[0, 0, 0, 0] == 255
    assert (moved == 1).sum() == 100


def test_one_slice_and_one_frame_are_legal():
    image = RNG.random((1, 1, 16, 16)).astype(np.float32)
    affine = oblique()
    moved = resample_image(image, affine, affine, (1, 16, 16))
    np.testing.assert_allclose(moved, image, atol=1e-5)


@pytest.mark.parametrize("ratio", [2.0, 4.0, 1.5])
def test_rounding_of_headers_moves_no_edge_of_a_mask(ratio):
    """Voxels halfway between two others are of one structure in each copy of a file."""
    rng = np.random.default_rng(0)
    mask = rng.integers(0, 4, (3, 1, 16, 16), dtype=np.uint8)
    spacing = np.diag([3.0, 3.0, 10.0, 1.0])
    fine = np.diag([3.0 / ratio, 3.0 / ratio, 10.0, 1.0])
    expected = resample_mask(mask, spacing, fine, (3, 24, 24))
    for _ in range(5):
        noise = np.zeros((4, 4))
        noise[:3] = rng.normal(0, 1e-6, (3, 4))
        moved = resample_mask(mask, spacing + noise, fine, (3, 24, 24))
        np.testing.assert_array_equal(moved, expected)
