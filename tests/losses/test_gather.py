"""Two processes contrast with each other's pairs as one process does with all of them."""

import torch
from torch import distributed, multiprocessing

from cmrvlm.losses.contrastive import info_nce
from cmrvlm.losses.gather import gather_rows

SHARES = (slice(0, 2), slice(2, 5))  # of five pairs


def pairs():
    torch.manual_seed(0)
    return torch.randn(5, 4), torch.randn(5, 4), torch.tensor([1, 2, 3, 1, 4])


def loss_of(images, texts, codes):
    return info_nce(images, texts, torch.tensor(5.0), codes[:, None] == codes[None])


def work(rank, path, found):
    distributed.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=2)
    images, texts, codes = (one[SHARES[rank]].clone() for one in pairs())
    images.requires_grad_(True)
    nothing = gather_rows(torch.zeros(0 if rank else 2, 3))
    loss = loss_of(gather_rows(images), gather_rows(texts), gather_rows(codes))
    loss.backward()
    found[rank] = (float(loss), images.grad.tolist(), list(nothing.shape))
    distributed.destroy_process_group()


def test_loss_and_gradients_of_two_processes_are_those_of_one(tmp_path):
    images, texts, codes = pairs()
    images.requires_grad_(True)
    loss = loss_of(gather_rows(images), gather_rows(texts), gather_rows(codes))
    loss.backward()
    with multiprocessing.Manager() as manager:
        found = manager.dict()
        multiprocessing.spawn(work, args=(tmp_path / "meet", found), nprocs=2)
        for rank, share in enumerate(SHARES):
            own, gradient, shape = found[rank]
            assert abs(own - float(loss)) < 1e-6
            assert shape == [2, 3]
            # Each process has the whole loss: summed back over both, averaged by DDP.
            assert (torch.tensor(gradient) / 2 - images.grad[share]).abs().max() < 1e-6
