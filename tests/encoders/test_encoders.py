import pytest
import torch

from cmrvlm.encoders import base
from cmrvlm.encoders.conv import ConvEncoder
from cmrvlm.encoders.swin import SwinEncoder
from cmrvlm.encoders.unet import UnetEncoder
from cmrvlm.encoders.window_attention import (
    WindowAttention,
    fit_window,
    partition,
    relative_offsets,
    unpartition,
)
from cmrvlm.errors import CmrvlmError

SMALL = {"stem_channels": (8, 16), "depths": (2, 1), "heads": 2}
ENCODERS = {
    "swin4d": lambda: SwinEncoder([(2, 1, 3, 3), (1, 0, 1, 1)], **SMALL),
    "swin3d_stack": lambda: SwinEncoder([(2, 2, 3, 3)], **SMALL, temporal_tokens=0),
    "swin3d_cine": lambda: SwinEncoder(
        [(4, 4, 3, 3)], **SMALL, temporal_tokens=3, spatial_grid=(1, 3, 3)
    ),
    "conv": lambda: ConvEncoder((8, 16, 16)),
    "unet": lambda: UnetEncoder((8, 8, 16, 16, 16), norm="instance"),
    "unet in groups": lambda: UnetEncoder((8, 8, 16, 16, 16)),
}
SIZES = [(4, 5, 48, 48), (1, 7, 40, 56), (3, 1, 33, 47), (6, 2, 64, 64)]


def awake(module):
    """The module with weights that begin at zero drawn at random, as after some training."""
    for parameter in module.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return module.eval()


@pytest.fixture(params=ENCODERS)
def encoder(request):
    torch.manual_seed(0)
    return awake(ENCODERS[request.param]())


@pytest.mark.parametrize("size", SIZES)
@torch.no_grad()
def test_batch_of_two_equals_two_of_one(encoder, size):
    images = torch.rand(2, 1, *size)
    both = encoder(images)
    for index in range(2):
        alone = encoder(images[index : index + 1])
        for together, single in zip(both.pyramid, alone.pyramid, strict=True):
            assert (together[index] - single[0]).abs().max() <= 1e-5
        assert (
            encoder.tokens_of_series(both.grid)[index] - encoder.tokens_of_series(alone.grid)[0]
        ).abs().max() <= 1e-5


@torch.no_grad()
def test_pictures_in_groups_are_pictures_all_at_once(encoder, monkeypatch):
    images = torch.rand(2, 1, 4, 5, 48, 48)
    whole = encoder(images)
    monkeypatch.setattr(base, "PIXELS_AT_ONCE", 7 * 48 * 48)
    for together, in_groups in zip(whole.pyramid, encoder(images).pyramid, strict=True):
        assert (together - in_groups).abs().max() <= 1e-5


@pytest.mark.parametrize("size", SIZES)
@torch.no_grad()
def test_pyramid_and_tokens_have_the_promised_shapes(encoder, size):
    z, t, h, w = size
    out = encoder(torch.rand(1, 1, *size))
    assert tuple(level.shape[1] for level in out.pyramid) == encoder.pyramid_channels
    for stride, level in zip(encoder.pyramid_strides, out.pyramid, strict=False):
        assert level.shape[2:4] == (z, t)
        assert abs(level.shape[4] - h / stride) <= 1
        assert abs(level.shape[5] - w / stride) <= 1
    assert encoder.tokens_of_series(out.grid).shape == (1, encoder.series_tokens, encoder.width)


@torch.no_grad()
def test_views_are_pooled_from_their_own_frame_or_slice(encoder):
    out = encoder(torch.rand(2, 1, 4, 3, 48, 48)).grid
    index, frames, slices = (torch.tensor(v) for v in ([1, 0, 1, 0], [2, -1, -1, 1], [-1, 3, 0, 2]))
    tokens = encoder.tokens_of_views(out, index, frames, slices)
    assert tokens.shape == (4, encoder.view_tokens, encoder.width)
    expected = [
        out[1, :, :, 2].mean((1, 2, 3)),
        out[0, :, 3].mean((1, 2, 3)),
        out[1, :, 0].mean((1, 2, 3)),
        out[0, :, 2, 1].mean((1, 2)),
    ]
    for one, mean in zip(tokens, expected, strict=True):
        # Adaptive pooling of 3 x 3 onto 3 x 3 keeps every value, so means agree where sizes divide.
        assert (one.mean(dim=0) - mean).abs().max() < 0.2
    assert not torch.allclose(tokens[0], tokens[2])


@pytest.mark.parametrize("name", ["swin4d", "conv"])
@torch.no_grad()
def test_turning_the_cine_turns_the_features(name):
    torch.manual_seed(0)
    encoder = awake(ENCODERS[name]())
    images = torch.rand(1, 1, 2, 6, 48, 48)
    turned = encoder(images.roll(2, dims=3)).grid
    assert (encoder(images).grid.roll(2, dims=3) - turned).abs().max() < 1e-5


@torch.no_grad()
def test_attention_over_one_window_is_plain_attention():
    torch.manual_seed(0)
    layer = awake(WindowAttention(8, 2, (0, 0, 0, 0)))
    x = torch.randn(1, 2, 3, 4, 5, 8)
    q, k, v = (
        part.view(120, 2, 4).transpose(0, 1)
        for part in layer.qkv(x.reshape(120, 8)).chunk(3, dim=-1)
    )
    bias = layer.bias(relative_offsets((2, 3, 4, 5), 3)).permute(2, 0, 1)
    weights = (q @ k.transpose(1, 2) / 2 + bias).softmax(dim=-1)
    expected = layer.out((weights @ v).transpose(0, 1).reshape(120, 8))
    assert (layer(x).reshape(120, 8) - expected).abs().max() < 1e-5


@pytest.mark.parametrize("shifted", [False, True])
@torch.no_grad()
def test_windows_do_not_see_padding_or_across_the_border(shifted):
    """A change at one corner must not reach the far corner within one layer, and padding must not change anything."""
    torch.manual_seed(0)
    layer = awake(WindowAttention(8, 2, (1, 1, 4, 4), shifted))
    x = torch.randn(1, 1, 1, 7, 10, 8)
    changed = x.clone()
    changed[..., 0, 0, :] += 5
    difference = (layer(changed) - layer(x)).abs().amax(dim=(0, 1, 2, 5))
    assert difference[0, 0] > 1e-3
    assert difference[-1].max() == 0
    assert difference[:, -1].max() == 0


def test_shifted_windows_reach_over_the_unshifted_border():
    torch.manual_seed(0)
    plain, shifted = (awake(WindowAttention(8, 2, (1, 1, 4, 4), shift)) for shift in (False, True))
    x = torch.randn(1, 1, 1, 8, 8, 8)
    changed = x.clone()
    changed[..., 3, 3, :] += 5
    with torch.no_grad():
        assert (plain(changed) - plain(x))[0, 0, 0, 4, 4].abs().max() == 0
        assert (shifted(changed) - shifted(x))[0, 0, 0, 4, 4].abs().max() > 1e-4


def test_windows_fit_any_axis():
    assert fit_window((8, 10, 12, 12), (2, 0, 6, 6)) == (2, 10, 6, 6)
    assert fit_window((5, 1, 7, 13), (2, 4, 6, 6)) == (2, 1, 4, 5)


def test_partition_is_undone():
    x = torch.randn(2, 4, 2, 6, 6, 3)
    assert torch.equal(unpartition(partition(x, (2, 1, 3, 3)), (2, 1, 3, 3), (4, 2, 6, 6)), x)


def test_gradients_reach_every_weight(encoder):
    out = encoder(torch.rand(2, 1, 4, 3, 40, 40))
    (
        encoder.tokens_of_series(out.grid).square().mean()
        + sum(p.square().mean() for p in out.pyramid[1:])
    ).backward()
    silent = [
        name
        for name, p in encoder.named_parameters()
        if p.grad is None or not p.grad.abs().sum() > 0
    ]
    assert not silent


def test_a_unet_normalises_as_its_configuration_says():
    """Runs from before there was a choice do not say, and have groups."""
    kinds = {
        norm: {
            type(one)
            for one in UnetEncoder((8, 8, 16, 16, 16), **own).modules()
            if "Norm" in type(one).__name__
        }
        for norm, own in (("group", {}), ("instance", {"norm": "instance"}))
    }
    layer_norm = torch.nn.LayerNorm  # of the mixing
    assert kinds == {
        "group": {torch.nn.GroupNorm, layer_norm},
        "instance": {torch.nn.InstanceNorm2d, layer_norm},
    }
    with pytest.raises(CmrvlmError, match="batch"):
        UnetEncoder(norm="batch")


@pytest.mark.parametrize("windows", [[], [(2, 6, 6)], [2, 1, 6, 6], [(2, -1, 6, 6)]])
def test_windows_without_four_lengths_are_refused(windows):
    with pytest.raises(CmrvlmError, match=r"windows.*\[2, 1, 6, 6\]|windows.*four lengths"):
        SwinEncoder(windows)
