import torch

from cmrvlm.models.disease_head import DiseaseHead
from cmrvlm.models.mask_decoder import MaskDecoder


@torch.no_grad()
def test_disease_head_reads_sets_of_any_size():
    torch.manual_seed(0)
    head = DiseaseHead(16, 5, heads=2).eval()
    tokens = torch.randn(2, 9, 16)
    valid = torch.tensor([[True] * 9, [True] * 4 + [False] * 5])
    both = head(tokens, valid)
    alone = head(tokens[1:, :4], valid[1:, :4])
    assert (both[1] - alone[0]).abs().max() < 1e-5
    tokens[1, 5:] = 100
    assert (head(tokens, valid)[1] - both[1]).abs().max() < 1e-5


@torch.no_grad()
def test_mask_decoder_reaches_full_resolution_at_any_size():
    torch.manual_seed(0)
    decoder = MaskDecoder((1, 4, 6, 8), 12, channels=(4, 6)).eval()
    for height, width in ((48, 48), (33, 50)):
        sizes = [(height, width)] + [(-(-height // s), -(-width // s)) for s in (4, 8, 16)]
        pyramid = [torch.randn(2, c, 3, 2, *size) for c, size in zip((1, 4, 6, 8), sizes, strict=True)]
        pixels = decoder.pixels(pyramid)
        logits = decoder(pixels, torch.randn(2, 12))
        assert logits.shape == (2, 3, 2, height, width)
        alone = decoder.pixels([level[1:, :, :, 1:] for level in pyramid])
        assert (alone[0, :, :, 0] - pixels[1, :, :, 1]).abs().max() < 1e-5
