"""Two processes train as one does on their batches together, whatever sequences each of them lacks."""

import os
import subprocess
import sys

import pytest
from safetensors.torch import load_file

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


def trained(folder, cache, *overrides):
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore",
            "-m",
            "cmrvlm.train",
            *overrides,
            f"out={folder}",
            f"paths.cache={cache}",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
        env={**os.environ, "MASTER_PORT": str(29500 + os.getpid() % 1000)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
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
