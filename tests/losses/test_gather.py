"""Two processes contrast with each other's pairs as one process does with all of them."""

from dataclasses import dataclass

import torch
from torch import Tensor, distributed, multiprocessing

from cmrvlm.losses.contrastive import info_nce
from cmrvlm.losses.gather import gather_rows

# Pairs of each process, of five.
SHARES = (slice(0, 2), slice(2, 5))


@dataclass
class Pairs:
    """Embeddings of images and texts, with a code that is equal for equal texts."""

    images: Tensor
    texts: Tensor
    codes: Tensor


def draw_pairs(share=slice(None)):
    torch.manual_seed(0)
    images = torch.randn(5, 4)
    texts = torch.randn(5, 4)
    codes = torch.tensor([1, 2, 3, 1, 4])
    return Pairs(images[share].clone().requires_grad_(), texts[share].clone(), codes[share].clone())


def gathered_loss(pairs):
    images = gather_rows(pairs.images)
    texts = gather_rows(pairs.texts)
    codes = gather_rows(pairs.codes)
    return info_nce(images, texts, torch.tensor(5.0), codes[:, None] == codes[None])


def work(rank, path, results):
    distributed.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=2)
    pairs = draw_pairs(SHARES[rank])
    # The second process has no rows.
    rows = gather_rows(torch.zeros(0 if rank else 2, 3))
    loss = gathered_loss(pairs)
    loss.backward()
    results[rank] = {
        "loss": float(loss),
        "gradient": pairs.images.grad.tolist(),
        "shape": list(rows.shape),
    }
    distributed.destroy_process_group()


def test_loss_and_gradients_of_two_processes_are_those_of_one(tmp_path):
    pairs = draw_pairs()
    loss = gathered_loss(pairs)
    loss.backward()
    with multiprocessing.Manager() as manager:
        results = manager.dict()
        multiprocessing.spawn(work, args=(tmp_path / "meet", results), nprocs=2)
        for rank, share in enumerate(SHARES):
            result = results[rank]
            assert abs(result["loss"] - float(loss)) < 1e-6
            assert result["shape"] == [2, 3]
            # Each process has the whole loss: summed back over both, averaged by DDP.
            gradient = torch.tensor(result["gradient"]) / 2
            assert (gradient - pairs.images.grad[share]).abs().max() < 1e-6
