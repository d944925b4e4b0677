"""Two processes train as one does on their batches together, and go on when they were killed."""

import os
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from cmrvlm.stages.base import Stage
from cmrvlm.stages.csv_logger import tables_of
from tests.conftest import ROOT

SAME = (
    "+debug=fast",
    "transform.augmentation=null",
    "optimizer=sgd",
    "optimizer.lr=0.05",
    "trainer.max_steps=3",
    "trainer.limit_val_batches=0",
)
OWN = {
    "+experiment=stage1": ("+mix.drop.sax=0.5", "+mix.drop.lax_4ch=0.9", "+mix.drop.lge=0.5"),
    "+experiment=stage3": ("mix.drop={sax: 0.5, lax_4ch: 0.9, lge: 0.5}", "stage.taught=null"),
}
TWO = (
    "hardware=ddp",
    "trainer.accelerator=cpu",
    "trainer.devices=2",
    "trainer.precision=32-true",
    "data.batch_size=1",
)


def start(folder, cache, *overrides):
    """Start a training in a session of its own."""
    command = [sys.executable, "-W", "ignore", "-m", "cmrvlm.train", *overrides]
    return subprocess.Popen(
        [*command, f"out={folder}", f"paths.cache={cache}"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "MASTER_PORT": str(29500 + os.getpid() % 1000)},
        start_new_session=True,
    )


def trained(folder, cache, *overrides):
    process = start(folder, cache, *overrides)
    output, _ = process.communicate(timeout=800)
    assert process.returncode == 0, output[-3000:]
    return load_file(folder / "model.safetensors")


@pytest.mark.slow  # trains in three processes
@pytest.mark.parametrize("stage", ["+experiment=stage1", "+experiment=stage3"])
def test_two_processes_are_one_with_larger_batches(cache, tmp_path, stage):
    own = (stage, *SAME, *OWN[stage])
    one = trained(tmp_path / "one", cache, *own, "data.batch_size=2")
    two = trained(tmp_path / "two", cache, *own, *TWO)
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert (two[name] - value).abs().max() < 1e-4, name


def wait_until(is_so, seconds=400):
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.005)


def has_ended(session):
    try:
        os.killpg(session, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.slow  # trains in six processes
def test_two_processes_that_were_killed_go_on_bit_for_bit(cache, tmp_path):
    settings = (
        "+experiment=stage3",
        "+debug=fast",
        "callbacks.samples=null",
        "callbacks.checkpoint.every_n_train_steps=2",
        "trainer.max_steps=12",
        "data.num_workers=2",
        *TWO,
    )
    whole = trained(tmp_path / "whole", cache, *settings)
    run = tmp_path / "run"
    process = start(run, cache, *settings)
    wait_until((run / "checkpoints" / "step2.ckpt").is_file)
    process.kill()
    # The other process and the workers of both end with the first one.
    process.communicate(timeout=100)
    wait_until(lambda: has_ended(process.pid), 100)
    assert not (run / "model.safetensors").exists()

    refused = start(run, cache, *settings)
    output, _ = refused.communicate(timeout=400)
    assert refused.returncode == 1
    checkpoint = output.strip().rsplit("ckpt_path=", 1)[1]
    resumed = trained(run, cache, *settings, f"ckpt_path={checkpoint}")
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    # The one that it was resumed from is left to the user.
    names = {path.name for path in run.rglob("*.ckpt")} - {checkpoint.rsplit("/", 1)[1]}
    assert names | {"last.ckpt"} == {"last.ckpt", "step12.ckpt"}
    # The first process alone writes, a table before the kill and one after it.
    assert sorted(run.rglob("metrics.csv")) == sorted(tables_of(run))
    assert len(tables_of(run)) == 2
    assert not list(run.rglob(".*.part"))


def test_processes_draw_apart_and_the_first_as_one_alone():
    def drawn(rank, step, seed=0):
        loop = SimpleNamespace(epoch_loop=SimpleNamespace(total_batch_idx=step))
        trainer = SimpleNamespace(global_step=step, estimated_stepping_batches=9, fit_loop=loop)
        stage = SimpleNamespace(trainer=trainer, seed=seed, global_rank=rank)
        Stage.on_train_batch_start(stage, None, 0)
        return tuple(torch.rand(3).tolist())

    draws = {
        drawn(rank, step, seed) for rank in range(4) for step in range(5) for seed in (0, 1, 7)
    }
    assert len(draws) == 4 * 5 * 3
    torch.manual_seed(7 * 1_000_003 + 4)
    alone = tuple(torch.rand(3).tolist())
    assert drawn(0, 4, 7) == alone
