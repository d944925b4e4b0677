import pytest
import torch

from cmrvlm.encoders import base
from cmrvlm.encoders.conv import ConvEncoder
from cmrvlm.encoders.swin import SwinEncoder
from cmrvlm.encoders.unet import UnetEncoder
from cmrvlm.encoders.window_attention import WindowAttention
from cmrvlm.encoders.windows import fit_window, partition, relative_offsets, unpartition
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


def randomise_zeros(module):
    """Draw the weights that are initialised to zero at random, as after some training."""
    for parameter in module.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return module.eval()


@pytest.fixture(params=ENCODERS)
def encoder(request):
    torch.manual_seed(0)
    return randomise_zeros(ENCODERS[request.param]())


@pytest.mark.parametrize("size", SIZES)
@torch.no_grad()
def test_batch_of_two_equals_two_of_one(encoder, size):
    images = torch.rand(2, 1, *size)
    both = encoder(images)
    both_tokens = encoder.tokens_of_series(both.grid)
    for index in range(2):
        single = encoder(images[index : index + 1])
        single_tokens = encoder.tokens_of_series(single.grid)
        for both_level, single_level in zip(both.pyramid, single.pyramid, strict=True):
            assert (both_level[index] - single_level[0]).abs().max() <= 1e-5
        assert (both_tokens[index] - single_tokens[0]).abs().max() <= 1e-5


@torch.no_grad()
def test_pictures_in_groups_give_the_features_of_all_at_once(encoder, monkeypatch):
    images = torch.rand(2, 1, 4, 5, 48, 48)
    at_once = encoder(images)
    monkeypatch.setattr(base, "PIXELS_AT_ONCE", 7 * 48 * 48)
    in_groups = encoder(images)
    for level, grouped_level in zip(at_once.pyramid, in_groups.pyramid, strict=True):
        assert (level - grouped_level).abs().max() <= 1e-5


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
    grid = encoder(torch.rand(2, 1, 4, 3, 48, 48)).grid
    index = torch.tensor([1, 0, 1, 0])
    frames = torch.tensor([2, -1, -1, 1])
    slices = torch.tensor([-1, 3, 0, 2])
    tokens = encoder.tokens_of_views(grid, index, frames, slices)
    assert tokens.shape == (4, encoder.view_tokens, encoder.width)
    expected = [
        grid[1, :, :, 2].mean((1, 2, 3)),
        grid[0, :, 3].mean((1, 2, 3)),
        grid[1, :, 0].mean((1, 2, 3)),
        grid[0, :, 2, 1].mean((1, 2)),
    ]
    for view_tokens, mean in zip(tokens, expected, strict=True):
        # Adaptive pooling of 3 x 3 onto 3 x 3 keeps every value, so means agree where sizes divide.
        assert (view_tokens.mean(dim=0) - mean).abs().max() < 0.2
    assert not torch.allclose(tokens[0], tokens[2])


@pytest.mark.parametrize("name", ["swin4d", "conv"])
@torch.no_grad()
def test_rolling_the_cine_in_time_rolls_the_features(name):
    torch.manual_seed(0)
    encoder = randomise_zeros(ENCODERS[name]())
    images = torch.rand(1, 1, 2, 6, 48, 48)
    grid = encoder(images).grid
    rolled = encoder(images.roll(2, dims=3)).grid
    assert (grid.roll(2, dims=3) - rolled).abs().max() < 1e-5


@torch.no_grad()
def test_attention_over_one_window_is_plain_attention():
    torch.manual_seed(0)
    layer = randomise_zeros(WindowAttention(8, 2, (0, 0, 0, 0)))
    x = torch.randn(1, 2, 3, 4, 5, 8)
    qkv = layer.qkv(x.reshape(120, 8)).chunk(3, dim=-1)
    q, k, v = (projected.view(120, 2, 4).transpose(0, 1) for projected in qkv)
    bias = layer.bias(relative_offsets((2, 3, 4, 5), 3)).permute(2, 0, 1)
    weights = (q @ k.transpose(1, 2) / 2 + bias).softmax(dim=-1)
    expected = layer.out((weights @ v).transpose(0, 1).reshape(120, 8))
    assert (layer(x).reshape(120, 8) - expected).abs().max() < 1e-5


@pytest.mark.parametrize("shifted", [False, True])
@torch.no_grad()
def test_windows_do_not_see_padding_or_across_the_border(shifted):
    """A change at one corner does not reach the far borders within one layer."""
    torch.manual_seed(0)
    layer = randomise_zeros(WindowAttention(8, 2, (1, 1, 4, 4), shifted))
    x = torch.randn(1, 1, 1, 7, 10, 8)
    changed = x.clone()
    changed[..., 0, 0, :] += 5
    difference = (layer(changed) - layer(x)).abs().amax(dim=(0, 1, 2, 5))
    assert difference[0, 0] > 1e-3
    assert difference[-1].max() == 0
    assert difference[:, -1].max() == 0


def test_shifted_windows_reach_over_the_unshifted_border():
    torch.manual_seed(0)
    plain = randomise_zeros(WindowAttention(8, 2, (1, 1, 4, 4), shifted=False))
    shifted = randomise_zeros(WindowAttention(8, 2, (1, 1, 4, 4), shifted=True))
    x = torch.randn(1, 1, 1, 8, 8, 8)
    changed = x.clone()
    changed[..., 3, 3, :] += 5
    with torch.no_grad():
        assert (plain(changed) - plain(x))[0, 0, 0, 4, 4].abs().max() == 0
        assert (shifted(changed) - shifted(x))[0, 0, 0, 4, 4].abs().max() > 1e-4


@pytest.mark.parametrize("shifted", [False, True])
def test_many_windows_in_several_calls_are_those_in_one(shifted, monkeypatch):
    layer = WindowAttention(8, 2, (2, 1, 2, 2), shifted=shifted)
    torch.nn.init.normal_(layer.out.weight)
    x = torch.randn(2, 3, 2, 5, 4, 8)
    in_one = layer(x)
    monkeypatch.setattr("cmrvlm.encoders.window_attention._MOST_WINDOWS", 5)
    torch.testing.assert_close(layer(x), in_one)


def test_windows_fit_any_axis():
    assert fit_window((8, 10, 12, 12), (2, 0, 6, 6)) == (2, 10, 6, 6)
    assert fit_window((5, 1, 7, 13), (2, 4, 6, 6)) == (2, 1, 4, 5)


def test_unpartition_undoes_partition():
    x = torch.randn(2, 4, 2, 6, 6, 3)
    window = (2, 1, 3, 3)
    windows = partition(x, window)
    assert windows.shape == (2 * 2 * 2 * 2 * 2, 2 * 3 * 3, 3)
    assert torch.equal(unpartition(windows, window, (4, 2, 6, 6)), x)


def test_gradients_reach_every_weight(encoder):
    out = encoder(torch.rand(2, 1, 4, 3, 40, 40))
    loss = encoder.tokens_of_series(out.grid).square().mean()
    for level in out.pyramid[1:]:
        loss = loss + level.square().mean()
    loss.backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def norms_of(module):
    return {type(layer) for layer in module.modules() if "Norm" in type(layer).__name__}


def test_a_unet_normalises_as_its_configuration_says():
    # The layer norm is that of the mixing.
    default = UnetEncoder((8, 8, 16, 16, 16))
    instance = UnetEncoder((8, 8, 16, 16, 16), norm="instance")
    assert norms_of(instance) == {torch.nn.InstanceNorm2d, torch.nn.LayerNorm}
    # Runs from before there was a choice do not say, and have groups.
    assert norms_of(default) == {torch.nn.GroupNorm, torch.nn.LayerNorm}
    with pytest.raises(CmrvlmError, match="batch"):
        UnetEncoder(norm="batch")


@pytest.mark.parametrize("windows", [[], [(2, 6, 6)], [2, 1, 6, 6], [(2, -1, 6, 6)]])
def test_windows_without_four_lengths_are_refused(windows):
    with pytest.raises(CmrvlmError, match=r"windows.*\[2, 1, 6, 6\]|windows.*four lengths"):
        SwinEncoder(windows)
