import math

import pytest
import torch
from monai.losses import DiceLoss

from cmrvlm.losses.classification import binary_sum, log_odds, regression_sum
from cmrvlm.losses.contrastive import InfoNce, SigLip, info_nce, sig_lip
from cmrvlm.losses.language import answer_cross_entropy
from cmrvlm.losses.segmentation import (
    box_profile_loss,
    mask_cross_entropy,
    scale_weights,
    soft_dice_loss,
    targets_at_scales,
)


def test_dice_equals_monai_where_both_are_defined():
    torch.manual_seed(0)
    logits = torch.randn(3, 4, 2, 16, 16)
    target = torch.randint(0, 2, logits.shape)
    reference = DiceLoss(sigmoid=True, smooth_nr=1.0, smooth_dr=1.0)
    expected = reference(logits.flatten(1)[:, None], target.flatten(1)[:, None].float())
    assert soft_dice_loss(logits, target).item() == pytest.approx(expected.item(), abs=1e-6)


def test_correct_empty_prediction_costs_nothing():
    logits = torch.full((1, 4, 1, 64, 64), -20.0)
    target = torch.zeros_like(logits, dtype=torch.uint8)
    assert soft_dice_loss(logits, target) < 0.01
    assert mask_cross_entropy(logits, target) < 0.01


def test_bf16_is_summed_in_float32():
    logits = torch.full((1, 16, 1, 128, 128), 3.0)
    target = torch.ones_like(logits, dtype=torch.uint8)
    with torch.autocast("cpu", torch.bfloat16):
        half = soft_dice_loss(logits.bfloat16(), target)
    assert torch.isfinite(half)
    assert half.item() == pytest.approx(soft_dice_loss(logits, target).item(), abs=1e-3)


def test_unannotated_voxels_are_ignored():
    torch.manual_seed(0)
    logits = torch.randn(1, 2, 1, 8, 8)
    target = torch.randint(0, 2, logits.shape).to(torch.uint8)
    hidden = torch.cat([target, torch.full_like(target, 255)], dim=1)
    both = torch.cat([logits, torch.randn_like(logits) * 10], dim=1)
    assert torch.allclose(soft_dice_loss(both, hidden), soft_dice_loss(logits, target))
    assert torch.allclose(mask_cross_entropy(both, hidden), mask_cross_entropy(logits, target))
    nothing = torch.full_like(target, 255)
    assert mask_cross_entropy(logits, nothing) == 0
    assert soft_dice_loss(logits, nothing) == 0


def test_scale_weights_add_up_to_one():
    assert scale_weights(1) == [1.0]
    assert scale_weights(3) == pytest.approx([4 / 7, 2 / 7, 1 / 7])


def test_targets_at_scales_take_the_nearest_value():
    target = torch.full((2, 1, 8, 8), 0, dtype=torch.uint8)
    target[..., 4:, :] = 1
    target[..., :4, :4] = 255
    fine, coarse = targets_at_scales(target, [torch.zeros(2, 1, 8, 8), torch.zeros(2, 1, 4, 4)])
    assert torch.equal(fine, target)
    assert coarse.dtype == torch.uint8
    assert coarse[..., 2:, :].eq(1).all()
    assert coarse[..., :2, :2].eq(255).all()
    assert coarse[..., :2, 2:].eq(0).all()


def test_contrast_of_unrelated_pairs_is_log_n():
    images = torch.eye(4)
    texts = torch.ones(4, 4)
    loss = info_nce(images, texts, torch.tensor(5.0), torch.eye(4, dtype=torch.bool))
    assert loss.item() == pytest.approx(math.log(4))


def test_contrast_of_matching_pairs_goes_to_zero():
    x = torch.eye(6)
    assert info_nce(x, x, torch.tensor(100.0), torch.eye(6, dtype=torch.bool)) < 1e-4


def test_sigmoid_contrast_equals_its_formula():
    x = torch.eye(2)
    loss = sig_lip(x, x, torch.tensor(2.0), torch.tensor(-1.0), torch.eye(2, dtype=torch.bool))
    # Logits are 1 on the diagonal and -1 beside it.
    assert loss.item() == pytest.approx(2 * math.log1p(math.exp(-1)))


def test_sigmoid_contrast_takes_several_positives():
    same = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 1]], dtype=torch.bool)
    points = torch.tensor([[1.0, 0], [1.0, 0], [0, 1.0]])
    scale = torch.tensor(100.0)
    bias = torch.tensor(-50.0)
    assert sig_lip(points, points, scale, bias, same) < 1e-4
    assert sig_lip(points, points, scale, bias, torch.eye(3, dtype=torch.bool)) > 1


@pytest.mark.parametrize("loss", [InfoNce, SigLip])
def test_contrast_pulls_pairs_together(loss):
    torch.manual_seed(0)
    contrast = loss()
    texts = torch.nn.functional.normalize(torch.randn(6, 8), dim=-1)
    images = torch.randn(6, 8, requires_grad=True)
    optimizer = torch.optim.Adam([images, *contrast.parameters()], lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        contrast(images, texts, torch.eye(6, dtype=torch.bool)).backward()
        optimizer.step()
    nearest = (torch.nn.functional.normalize(images, dim=-1) @ texts.T).argmax(dim=1)
    assert nearest.tolist() == list(range(6))


def test_identical_texts_are_no_negatives():
    x = torch.tensor([[1.0, 0], [1.0, 0], [0, 1.0]])
    same = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 1]], dtype=torch.bool)
    assert info_nce(x, x, torch.tensor(100.0), same) < 1e-4
    assert info_nce(x, x, torch.tensor(100.0), torch.eye(3, dtype=torch.bool)) > 0.3


def test_language_loss_is_the_sum_over_answer_tokens():
    logits = torch.zeros(3, 10)
    labels = torch.tensor([1, 3, 5])
    once = torch.ones(3)
    assert answer_cross_entropy(logits, labels, once).item() == pytest.approx(3 * math.log(10))
    weights = torch.tensor([2.0, 0.5, 0.0])
    assert answer_cross_entropy(logits, labels, weights).item() == pytest.approx(2.5 * math.log(10))
    no_labels = torch.zeros(0, dtype=torch.long)
    assert answer_cross_entropy(torch.zeros(0, 10), no_labels, torch.zeros(0)) == 0


def test_binary_loss_sums_classes_and_leaves_unknown_ones_out():
    target = torch.ones(2, 16)
    assert binary_sum(torch.zeros(2, 16), target).item() == pytest.approx(32 * math.log(2))
    target[0, :4] = float("nan")
    logits = torch.zeros(2, 16, requires_grad=True)
    loss = binary_sum(logits, target)
    assert loss.item() == pytest.approx(28 * math.log(2))
    loss.backward()
    assert (logits.grad[0, :4] == 0).all()
    assert torch.isfinite(logits.grad).all()


def test_logit_adjustment_makes_the_prior_cost_nothing():
    """Logits of 0 with the log odds of the shares added cost what the shares themselves cost."""
    shares = torch.tensor([0.1, 0.5, float("nan")])
    target = torch.tensor([[1.0, 0.0, 1.0]])
    adjusted = binary_sum(torch.zeros(1, 3), target, log_odds(shares))
    assert adjusted.item() == pytest.approx(-math.log(0.1) - math.log(0.5) + math.log(2), rel=1e-5)


def test_regression_counts_known_values_alone():
    target = torch.tensor([[1.0, float("nan")], [0.0, 0.0]])
    assert regression_sum(torch.zeros(2, 2), target).item() == pytest.approx(1 - 0.1)
    assert regression_sum(torch.zeros(1, 2), torch.full((1, 2), float("nan"))) == 0


def test_box_loss_depends_on_extents_alone():
    target = torch.zeros(4, 12, 12, dtype=torch.uint8)
    target[1:3, 3:8, 2:9] = 1
    box = target.float() * 40 - 20
    hollow = box.clone()
    # Extents stay.
    hollow[1:3, 4:7, 3:8] = -20
    assert box_profile_loss(box, target) < 0.01
    assert box_profile_loss(hollow, target) < 0.01
    shifted = box.roll(3, dims=2)
    assert box_profile_loss(shifted, target) > 1


def test_box_loss_ignores_what_is_not_annotated():
    target = torch.zeros(4, 12, 12, dtype=torch.uint8)
    target[1:3, 3:8, 2:9] = 1
    partly_known = target.clone()
    partly_known[:, :4] = 255
    logits = target.float() * 40 - 20
    logits[:, :4] = 20.0
    assert box_profile_loss(logits, partly_known) < 0.01 < box_profile_loss(logits, target)
