"""Workers that read data end with their training, whoever still holds their loader."""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass

import pytest

from data_modules.loading.accumulation import AccumulationLoader
from data_modules.loading.workers import leave_signals_to_the_parent
from tests.conftest import ROOT

CODE = """
import builtins, sys
from torch.utils.data import DataLoader
from data_modules.loading.accumulation import AccumulationLoader
from data_modules.loading.workers import end_workers_at_exit, leave_signals_to_the_parent

end_workers_at_exit()
settings = {"num_workers": 2, "persistent_workers": True}
loader = DataLoader(range(20), 2, worker_init_fn=leave_signals_to_the_parent, **settings)
batches = iter(loader)
next(batches)
# Something that lives until the very end.
builtins.kept = batches
if sys.argv[1] == "error":
    raise ValueError("broken")
if sys.argv[1] == "exit":
    sys.exit(3)
"""


@pytest.mark.parametrize(("ending", "status"), [("end", 0), ("error", 1), ("exit", 3)])
def test_a_process_ends_though_its_workers_ignore_signals(ending, status):
    ended = subprocess.run(
        [sys.executable, "-c", CODE, ending],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=120,
        check=False,
    )
    assert ended.returncode == status, ended.stderr
    assert "RuntimeError" not in ended.stderr


@dataclass(frozen=True)
class Single:
    """A batch of one sample."""

    normalisers: dict | None = None

    def counts(self):
        return {"samples": 1.0}


def single(samples):
    return Single()


def test_the_trainer_can_end_the_workers_of_accumulated_batches():
    """It looks for the iterator of a `DataLoader`."""
    from lightning.pytorch.utilities.combined_loader import CombinedLoader

    loader = AccumulationLoader(
        2,
        list(range(6)),
        num_workers=1,
        persistent_workers=True,
        collate_fn=single,
        worker_init_fn=leave_signals_to_the_parent,
    )
    combined = CombinedLoader(loader, "max_size_cycle")
    first, _, _ = next(iter(combined))
    assert first.normalisers == {"samples": 1.0}
    (worker,) = loader._iterator._workers
    combined.reset()
    worker.join(timeout=30)
    assert not worker.is_alive()
    assert worker.exitcode != -signal.SIGKILL
    assert len(loader) == 6
