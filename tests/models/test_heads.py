import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from cmrvlm.models.mask_decoder import MaskDecoder
from cmrvlm.models.projector import MLPProjector, ResamplingProjector
from cmrvlm.models.read_out import ReadOut
from cmrvlm.models.read_out_tokens import ReadOutTokens


def made_up_names(sizes):
    """Return token ids of two words for the name of each value of each output."""
    return {name: [[index, index + 1] for index in range(size)] for name, size in sizes.items()}


@torch.no_grad()
def test_read_out_adds_the_summaries_of_shown_sequences():
    torch.manual_seed(0)
    sizes = {"disease": 5, "measurements": 3}
    head = ReadOut(
        {"sax": 6, "lge": 4}, {"sax": 8, "lge": 5}, made_up_names(sizes), token_width=12, hidden=16
    ).eval()
    sax = head.summarise("sax", torch.randn(3, 6, 8))
    lge = head.summarise("lge", torch.randn(3, 4, 5))
    outputs = head([sax[0] + lge[0], sax[1], lge[2]])
    sax_alone = head([sax[0], sax[1]])
    for name, size in sizes.items():
        assert outputs[name].shape == (3, size)
        assert (sax_alone[name][1] - outputs[name][1]).abs().max() < 1e-6
        assert (sax_alone[name][0] - outputs[name][0]).abs().max() > 1e-4


def test_untrained_read_out_expects_one_class_of_many():
    head = ReadOut({"sax": 2}, {"sax": 4}, made_up_names({"disease": 16}), token_width=12)
    probabilities = torch.sigmoid(head([torch.zeros(256)])["disease"])
    assert probabilities.mean().item() == pytest.approx(1 / 16, abs=0.01)


@torch.no_grad()
@pytest.mark.parametrize("projector_class", [MLPProjector, ResamplingProjector])
def test_projectors_give_the_promised_tokens(projector_class):
    torch.manual_seed(0)
    projector = projector_class(in_width=8, out_width=12, counts=(6, 4))
    for view, count in enumerate((6, 4)):
        tokens = torch.randn(3, count, 8)
        out = projector(tokens, view=bool(view))
        assert out.shape == (3, projector.out_counts[view], 12)
        single = projector(tokens[1:2], view=bool(view))
        assert (single[0] - out[1]).abs().max() < 1e-5
        # The position of a token matters.
        reversed_tokens = projector(tokens.flip(1), view=bool(view))
        assert (reversed_tokens - out).abs().max() > 1e-4


CHANNELS = (1, 4, 6, 8)
STRIDES = (1, 4, 8, 16)
MASK = torch.tensor([False, False])


@dataclass
class Decoding:
    """A mask decoder, a random pyramid of two frames of two series, and its pixel features."""

    decoder: MaskDecoder
    pyramid: list[Tensor]
    pixels: Tensor


@pytest.fixture(params=[(48, 48), (33, 50)], ids=str)
def decoding(request):
    torch.manual_seed(0)
    decoder = MaskDecoder(CHANNELS, STRIDES, 12, channels=(4, 6)).eval().requires_grad_(False)
    height, width = request.param
    pyramid = []
    for channels, stride in zip(CHANNELS, STRIDES, strict=True):
        size = (math.ceil(height / stride), math.ceil(width / stride))
        pyramid.append(torch.randn(2, channels, 3, 2, *size))
    (pixels,) = decoder.pixels(pyramid)
    return Decoding(decoder, pyramid, pixels)


def test_mask_decoder_reaches_full_resolution_at_any_size(decoding):
    height, width = decoding.pyramid[0].shape[-2:]
    marks, words = torch.randn(2, 12), torch.randn(2, 12)
    logits = decoding.decoder(decoding.pixels, torch.arange(2), marks, words, MASK)
    assert logits.shape == (2, 3, 2, height, width)


def test_boxes_have_a_query_of_their_own(decoding):
    marks, words = torch.randn(2, 12), torch.randn(2, 12)
    masks = decoding.decoder(decoding.pixels, torch.arange(2), marks, words, MASK)
    as_box = torch.tensor([False, True])
    mixed = decoding.decoder(decoding.pixels, torch.arange(2), marks, words, as_box)
    assert torch.equal(mixed[0], masks[0])
    assert not torch.equal(mixed[1], masks[1])


def test_each_query_is_answered_as_if_alone(decoding):
    group_index = torch.tensor([1, 0, 1])
    marks, words = torch.randn(3, 12), torch.randn(3, 12)
    as_box = torch.tensor([False, True, False])
    together = decoding.decoder(decoding.pixels, group_index, marks, words, as_box)
    for row, group in enumerate(group_index.tolist()):
        query = slice(row, row + 1)
        single = decoding.decoder(
            decoding.pixels[group : group + 1],
            torch.tensor([0]),
            marks[query],
            words[query],
            as_box[query],
        )
        assert (single[0] - together[row]).abs().max() < 1e-5


def test_each_frame_is_decoded_as_if_alone(decoding):
    (single,) = decoding.decoder.pixels([level[1:, :, :, 1:] for level in decoding.pyramid])
    assert (single[0, :, :, 0] - decoding.pixels[1, :, :, 1]).abs().max() < 1e-5


def test_coarser_scales_are_decoded_in_training_alone():
    torch.manual_seed(0)
    decoder = MaskDecoder((4, 4, 6, 8), (1, 2, 4, 8), 12, channels=(4, 6), scales=3)
    assert decoder.detail is None
    pyramid = [
        torch.randn(2, channels, 3, 1, 32 // stride, 48 // stride)
        for channels, stride in zip((4, 4, 6, 8), (1, 2, 4, 8), strict=True)
    ]
    scales = decoder.pixels(pyramid)
    shapes = [pixels.shape for pixels in scales]
    assert shapes == [(2, 4, 3, 1, 32 // stride, 48 // stride) for stride in (1, 2, 4)]
    marks, words = torch.randn(2, 12), torch.randn(2, 12)
    logits = [decoder(pixels, torch.arange(2), marks, words, MASK) for pixels in scales]
    sum(scale.sum() for scale in logits).backward()
    assert all(p.grad is not None for head in decoder.coarse for p in head.parameters())
    assert len(decoder.eval().pixels(pyramid)) == 1


def test_no_gradient_flows_from_read_out_tokens_to_the_read_out():
    torch.manual_seed(0)
    embed = nn.Embedding(30, 12)
    head = ReadOut(
        {"sax": 2}, {"sax": 4}, made_up_names({"disease": 16, "measurements": 3}), token_width=12
    )
    outputs = head([torch.randn(256), torch.randn(256)])
    tokens = head.tell(outputs, embed)
    assert tokens.shape == (2, 19, 12)
    tokens.sum().backward()
    assert all(p.grad is None for p in [*head.outputs.parameters(), *head.read.parameters()])
    assert all(p.grad is not None for p in [*head.tell.parameters(), *embed.parameters()])
    extreme = {name: value * 1e6 for name, value in outputs.items()}
    assert torch.isfinite(head.tell(extreme, embed)).all()


@torch.no_grad()
def test_read_out_tokens_hold_the_name_and_move_with_the_value():
    torch.manual_seed(0)
    embed = nn.Embedding(30, 12)
    tell = ReadOutTokens({"findings": [[3], [4, 5, 6]], "measurements": [[7, 8]]}, 12)
    zero = {"findings": torch.zeros(1, 2), "measurements": torch.zeros(1, 1)}
    names = torch.stack(
        [embed.weight[3], embed.weight[4:7].mean(dim=0), embed.weight[7:9].mean(dim=0)]
    )
    assert torch.allclose(tell(zero, embed)[0], names + tell.labels, atol=1e-6)
    moved = tell(zero | {"findings": torch.tensor([[0.0, 2.0]])}, embed)[0] - tell(zero, embed)[0]
    assert torch.allclose(moved[1], tell.directions[0] / 2, atol=1e-6)
    assert moved[[0, 2]].abs().max() == 0
