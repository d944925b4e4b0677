"""Ctrl-C and SIGTERM keep the last step, and what is resumed from it equals an unbroken training."""

import contextlib
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from cmrvlm.errors import CmrvlmError
from cmrvlm.runs.run_claim import CHECKPOINTS
from cmrvlm.stages.base import Stage
from cmrvlm.stages.callbacks.interruption import EndOnSignal
from cmrvlm.stages.training import train
from tests.conftest import ROOT
from tests.stages.test_training import QUIET, SMALL

SETTINGS = (
    "+experiment=stage3",
    *QUIET,
    *SMALL,
    "data.source.count=16",
    "data.batch_size=4",
    "data.shares={val:0.25,test:0}",
    # Nothing else writes a checkpoint.
    "callbacks.checkpoint.every_n_train_steps=1000",
    "trainer.num_sanity_val_steps=0",
    "trainer.val_check_interval=2",
    "trainer.max_steps=6",
)


def signalled(number, hook, at, monkeypatch):
    """Send a signal to this process at one call of a hook of the stage."""
    inner = getattr(Stage, hook)
    calls = []

    def step(self, *arguments):
        calls.append(self.trainer.global_step)
        if len(calls) == at:
            os.kill(os.getpid(), number)
        return inner(self, *arguments)

    monkeypatch.setattr(Stage, hook, step)
    return calls


def weights_of(config):
    return load_file(Path(config["run_dir"]) / "model.safetensors")


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """Weights of trainings that nothing interrupted, by their settings."""
    return {}


@pytest.mark.parametrize(
    ("number", "hook", "at", "more", "step"),
    [
        (signal.SIGTERM, "training_step", 3, (), 3),
        pytest.param(
            signal.SIGINT, "training_step", 2, ("data.num_workers=2",), 2, marks=pytest.mark.slow
        ),
        pytest.param(signal.SIGTERM, "training_step", 4, (), 4, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, "validation_step", 1, (), 2, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, "validation_step", 2, (), 4, marks=pytest.mark.slow),
        pytest.param(
            signal.SIGINT,
            "training_step",
            1,
            ("trainer.accumulate_grad_batches=2",),
            1,
            marks=pytest.mark.slow,
        ),
        # This validation comes while gradients are accumulated.
        pytest.param(
            signal.SIGTERM,
            "validation_step",
            1,
            ("trainer.accumulate_grad_batches=2", "trainer.val_check_interval=1"),
            1,
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_signal_keeps_the_step(number, hook, at, more, step, unbroken, small_config, monkeypatch):
    before = signal.getsignal(number)
    halted = small_config(*SETTINGS, *more, folder="halted")
    with monkeypatch.context() as patch:
        signalled(number, hook, at, patch)
        with pytest.raises(CmrvlmError, match=r"interrupted.*ckpt_path=.*last\.ckpt"):
            train(halted, Path(halted["run_dir"]))
    assert signal.getsignal(number) is before
    checkpoint = Path(halted["run_dir"]) / CHECKPOINTS / "last.ckpt"
    kept = torch.load(checkpoint, weights_only=True)
    assert kept["global_step"] == step

    resumed = small_config(*SETTINGS, *more, f"ckpt_path={checkpoint}", folder="resumed")
    train(resumed, Path(resumed["run_dir"]))
    if more not in unbroken:
        whole = small_config(*SETTINGS, *more, folder="whole")
        train(whole, Path(whole["run_dir"]))
        unbroken[more] = weights_of(whole)
    again = weights_of(resumed)
    assert all(torch.equal(value, again[name]) for name, value in unbroken[more].items())


class Killed(BaseException):
    """Ends a training where it is, as a kill does."""


def train_until(config, batch, monkeypatch):
    """Train until a batch begins, counted from 0 over the whole training."""
    begin = Stage.on_train_batch_start

    def end_at(self, *arguments):
        if self.trainer.fit_loop.epoch_loop.total_batch_idx == batch:
            raise Killed
        begin(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Stage, "on_train_batch_start", end_at)
        with pytest.raises(Killed):
            train(config, Path(config["run_dir"]))


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 3])
def test_a_resumed_training_keeps_no_checkpoint_amid_gradients(size, small_config, monkeypatch):
    more = (
        f"trainer.accumulate_grad_batches={size}",
        "callbacks.checkpoint.every_n_train_steps=1",
        "data.source.count=32",
        "trainer.max_steps=3",
    )
    config = small_config(*SETTINGS, *more)
    train_until(config, size, monkeypatch)
    checkpoint = Path(config["run_dir"]) / CHECKPOINTS / "last.ckpt"
    resumed = small_config(*SETTINGS, *more, f"ckpt_path={checkpoint}")
    # It is killed again after one more batch, whose gradients wait for the next one.
    train_until(resumed, size + 1, monkeypatch)
    kept = torch.load(checkpoint, weights_only=True)
    assert kept["global_step"] == 1
    progress = kept["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    assert progress["total"]["processed"] == size
    train(resumed, Path(resumed["run_dir"]))
    whole = small_config(*SETTINGS, *more, folder="whole")
    train(whole, Path(whole["run_dir"]))
    again = weights_of(resumed)
    assert all(torch.equal(value, again[name]) for name, value in weights_of(whole).items())


@pytest.mark.parametrize(
    ("ready", "is_last", "size", "is_refused"),
    [
        (3, False, 2, True),
        (1, False, 4, True),
        (4, False, 3, True),
        (4, False, 2, False),
        (3, True, 2, False),
        (3, False, 1, False),
    ],
)
def test_a_checkpoint_without_its_gradients_is_refused(ready, is_last, size, is_refused):
    progress = {"current": {"ready": ready}, "is_last_batch": is_last}
    checkpoint = {
        "loops": {"fit_loop": {"epoch_loop.batch_progress": progress}},
        "state_dict": {},
    }
    stage = SimpleNamespace(
        trainer=SimpleNamespace(accumulate_grad_batches=size, ckpt_path="a.ckpt")
    )
    check = partial(Stage._check_complete, stage, checkpoint, "a.ckpt")
    if not is_refused:
        check()
        return
    with pytest.raises(CmrvlmError, match=r"a\.ckpt.*between two optimizer steps"):
        check()


def test_the_second_signal_ends_at_once(small_config, monkeypatch):
    config = small_config(*SETTINGS)

    def twice(self, *arguments):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)
        raise AssertionError("the training went on")

    monkeypatch.setattr(Stage, "training_step", twice)
    with pytest.raises(CmrvlmError, match=r"interrupted.*no checkpoint yet"):
        train(config, Path(config["run_dir"]))


def command_of(run, cache):
    """A training with workers that goes on until it is told to end."""
    return [
        *(sys.executable, "-m", "cmrvlm.train", "+experiment=stage3", "+debug=fast"),
        *(f"paths.cache={cache}", f"out={run}", "trainer.max_steps=100000"),
        *("data.num_workers=2", "trainer.limit_val_batches=0"),
    ]


def wait_for_steps(run):
    end = time.monotonic() + 120
    while not list(run.glob("logs/**/metrics.csv")) and time.monotonic() < end:
        time.sleep(0.2)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_processes_of_the_command_keeps_the_step(number, cache, tmp_path):
    """A terminal and a scheduler send it to the workers of the data, too."""
    run = tmp_path / "run"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        command_of(run, cache),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        text=True,
        start_new_session=True,
    )
    wait_for_steps(run)
    os.killpg(process.pid, number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Traceback" not in output
    last = output.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert f"ckpt_path={run}" in last.replace("\n", "")
    assert (run / CHECKPOINTS / "last.ckpt").is_file()


@pytest.mark.slow
def test_a_terminal_that_is_closed_keeps_the_step(cache, tmp_path):
    """The process cannot say anything any more, and does not fail at trying to."""
    run = tmp_path / "run"
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(ROOT)
        os.environ["PYTHONPATH"] = str(ROOT)
        command = command_of(run, cache)
        os.execv(command[0], command)
    reader = threading.Thread(target=read_all, args=(terminal,), daemon=True)
    reader.start()
    wait_for_steps(run)
    os.close(terminal)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 1
    assert (run / CHECKPOINTS / "last.ckpt").is_file()
    assert "interrupted" in (run / "traceback.txt").read_text()


def read_all(terminal):
    """Read what comes to a terminal until it is closed."""
    with contextlib.suppress(OSError):
        while os.read(terminal, 1024):
            pass


def test_what_ignores_closed_terminals_goes_on_ignoring_them(tmp_path):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with EndOnSignal(tmp_path).listening():
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)
