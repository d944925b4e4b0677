import pytest
import torch
from torch import nn

from cmrvlm.models.mask_decoder import MaskDecoder
from cmrvlm.models.projector import MLPProjector, ResamplingProjector
from cmrvlm.models.read_out import ReadOut
from cmrvlm.models.read_out_tokens import ReadOutTokens


def names_of(sizes):
    """Made-up token ids for the names of so many values."""
    return {name: [[index, index + 1] for index in range(size)] for name, size in sizes.items()}


@torch.no_grad()
def test_read_out_adds_what_each_shown_sequence_says():
    torch.manual_seed(0)
    sizes = {"disease": 5, "measurements": 3}
    head = ReadOut(
        {"sax": 6, "lge": 4}, {"sax": 8, "lge": 5}, names_of(sizes), token_width=12, hidden=16
    ).eval()
    sax, lge = (
        head.summarise("sax", torch.randn(3, 6, 8)),
        head.summarise("lge", torch.randn(3, 4, 5)),
    )
    both = head([sax[0] + lge[0], sax[1], lge[2]])
    for name, size in sizes.items():
        assert both[name].shape == (3, size)
        assert (head([sax[1]])[name][0] - both[name][1]).abs().max() < 1e-6
        assert (both[name][0] - head([sax[0]])[name][0]).abs().max() > 1e-4


def test_untrained_read_out_expects_one_class_of_many():
    head = ReadOut({"sax": 2}, {"sax": 4}, names_of({"disease": 16}), token_width=12)
    assert torch.sigmoid(head([torch.zeros(256)])["disease"]).mean().item() == pytest.approx(
        1 / 16, abs=0.01
    )


@torch.no_grad()
@pytest.mark.parametrize("kind", [MLPProjector, ResamplingProjector])
def test_projectors_give_the_tokens_they_promise(kind):
    torch.manual_seed(0)
    projector = kind(in_width=8, out_width=12, counts=(6, 4))
    for view, count in enumerate((6, 4)):
        tokens = torch.randn(3, count, 8)
        out = projector(tokens, view=bool(view))
        assert out.shape == (3, projector.out_counts[view], 12)
        assert (projector(tokens[1:2], view=bool(view))[0] - out[1]).abs().max() < 1e-5
        assert (
            projector(tokens.flip(1), view=bool(view)) - out
        ).abs().max() > 1e-4  # places matter


@torch.no_grad()
def test_mask_decoder_reaches_full_resolution_at_any_size():
    torch.manual_seed(0)
    decoder = MaskDecoder((1, 4, 6, 8), (1, 4, 8, 16), 12, channels=(4, 6)).eval()
    for height, width in ((48, 48), (33, 50)):
        sizes = [(height, width)] + [(-(-height // s), -(-width // s)) for s in (4, 8, 16)]
        pyramid = [
            torch.randn(2, c, 3, 2, *size) for c, size in zip((1, 4, 6, 8), sizes, strict=True)
        ]
        (pixels,) = decoder.pixels(pyramid)
        said = torch.randn(2, 12), torch.randn(2, 12)
        logits = decoder(pixels, torch.arange(2), *said, torch.tensor([False, False]))
        assert logits.shape == (2, 3, 2, height, width)
        mixed = decoder(pixels, torch.arange(2), *said, torch.tensor([False, True]))
        assert torch.equal(mixed[0], logits[0])
        assert not torch.equal(mixed[1], logits[1])
        which, marks, words = torch.tensor([1, 0, 1]), torch.randn(3, 12), torch.randn(3, 12)
        together = decoder(pixels, which, marks, words, torch.tensor([False, True, False]))
        for row, picture in enumerate(which.tolist()):
            own = slice(row, row + 1)
            one = decoder(
                pixels[picture : picture + 1],
                torch.tensor([0]),
                marks[own],
                words[own],
                torch.tensor([row == 1]),
            )
            assert (one[0] - together[row]).abs().max() < 1e-5
        (alone,) = decoder.pixels([level[1:, :, :, 1:] for level in pyramid])
        assert (alone[0, :, :, 0] - pixels[1, :, :, 1]).abs().max() < 1e-5


def test_coarser_scales_are_decoded_in_training_alone():
    torch.manual_seed(0)
    decoder = MaskDecoder((4, 4, 6, 8), (1, 2, 4, 8), 12, channels=(4, 6), scales=3)
    assert decoder.detail is None
    pyramid = [
        torch.randn(2, c, 3, 1, 32 // s, 48 // s)
        for c, s in zip((4, 4, 6, 8), (1, 2, 4, 8), strict=True)
    ]
    features = decoder.pixels(pyramid)
    assert [one.shape for one in features] == [(2, 4, 3, 1, 32 // s, 48 // s) for s in (1, 2, 4)]
    said = torch.randn(2, 12), torch.randn(2, 12)
    sum(
        decoder(one, torch.arange(2), *said, torch.tensor([False, False])).sum() for one in features
    ).backward()
    assert all(p.grad is not None for head in decoder.coarse for p in head.parameters())
    assert len(decoder.eval().pixels(pyramid)) == 1


def test_what_is_read_is_told_and_the_words_do_not_change_it():
    torch.manual_seed(0)
    embed = nn.Embedding(30, 12)
    head = ReadOut(
        {"sax": 2}, {"sax": 4}, names_of({"disease": 16, "measurements": 3}), token_width=12
    )
    outputs = head([torch.randn(256), torch.randn(256)])
    told = head.tell(outputs, embed)
    assert told.shape == (2, 19, 12)
    told.sum().backward()
    assert all(p.grad is None for p in [*head.outputs.parameters(), *head.read.parameters()])
    assert all(p.grad is not None for p in [*head.tell.parameters(), *embed.parameters()])
    far = head.tell({name: value * 1e6 for name, value in outputs.items()}, embed)
    assert torch.isfinite(far).all()


@torch.no_grad()
def test_a_token_holds_the_name_of_its_value_and_moves_with_it():
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
