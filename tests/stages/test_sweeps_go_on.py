"""A sweep ends with all of its jobs named, and given again it goes on with those that are not done."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cmrvlm.stages.callbacks.sweep_table import jobs_of
from tests.conftest import ROOT
from tests.stages.test_sweeps import FAST, holder, result
from tests.test_entry_points import python

pytestmark = [
    pytest.mark.slow,  # each job is a process
    pytest.mark.skipif(
        not Path("/proc/self/fd").is_dir(), reason="processes are found by their open files"
    ),
]

# No optimizer takes the second, the fourth gives weights that are not finite after a step.
RATES = [0.001, -1, 0.002, 1e30, 0.003, 0.004, 0.005, 0.006, 0.007, 0.008, 0.009, 0.01]
REFUSED, NOT_FINITE, KILLED = 1, 3, 4
SECONDS = 1500


def start(folder, cache, *overrides):
    """Start a sweep into a folder; its output is in `output.txt` there."""
    arguments = ("-m", *FAST, f"paths.cache={cache}", f"hydra.sweep.dir={folder}", *overrides)
    folder.mkdir(exist_ok=True)
    with (folder / "output.txt").open("w") as output:
        return subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "cmrvlm.train", *arguments],
            cwd=ROOT,
            stdout=output,
            stderr=output,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            start_new_session=True,
        )


def wait_until(is_so):
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        found = is_so()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError("it did not come about")


def written_at(folder, jobs):
    return {job: (folder / str(job) / "model.safetensors").stat().st_mtime_ns for job in jobs}


@pytest.mark.parametrize("launcher", ["basic", "joblib"])
def test_of_twelve_jobs_three_fail_and_are_named(launcher, tmp_path, cache):
    rates = ",".join(str(rate) for rate in RATES)
    extra = ["+sweep=joblib"] if launcher == "joblib" else []
    sweep = start(tmp_path, cache, f"optimizer.lr={rates}", *extra)
    lock = tmp_path / str(KILLED) / ".lock"
    os.kill(wait_until(lambda: lock.exists() and holder(lock)), signal.SIGKILL)
    assert sweep.wait(timeout=SECONDS) == 1
    failed = {REFUSED: "refuses its settings", NOT_FINITE: "not finite", KILLED: "by signal 9"}
    jobs = jobs_of(tmp_path)
    assert [job["job"] for job in jobs] == list(range(12))
    assert {job["job"] for job in jobs if job["status"] == "failed"} == set(failed)
    assert all(reason in jobs[number]["error"] for number, reason in failed.items())
    assert all(job["metric"] for job in jobs if job["job"] not in failed)
    output = (tmp_path / "output.txt").read_text()
    table = (tmp_path / "jobs.txt").read_text()
    for text in (table, output):
        assert all(f"optimizer.lr={rate}" in text for rate in RATES)
        assert all(text.count(word) >= count for word, count in (("done", 9), ("failed", 3)))
    assert "3 jobs failed: 1, 3, 4" in output
    done = written_at(tmp_path, set(range(12)) - set(failed))
    metrics = [job["metric"] for job in jobs]

    # What was killed is trained now; what cannot be trained fails once more.
    assert start(tmp_path, cache, f"optimizer.lr={rates}", *extra).wait(timeout=SECONDS) == 1
    again = jobs_of(tmp_path)
    assert {job["job"] for job in again if job["status"] == "failed"} == {REFUSED, NOT_FINITE}
    assert written_at(tmp_path, done) == done
    assert all(again[job]["metric"] == metrics[job] for job in done)
    assert again[KILLED]["metric"]
    assert not (tmp_path / str(KILLED) / "traceback.txt").exists()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_sweep_whose_process_is_ended_goes_on_with_the_same_command(number, tmp_path, cache):
    # Long enough that the second job is not done before a busy machine has noticed that it began.
    settings = ("callbacks.checkpoint.every_n_train_steps=1", "trainer.max_steps=25")
    sweep = start(tmp_path / "sweep", cache, "seed=1,2,3", *settings)
    folder = tmp_path / "sweep"
    wait_until(lambda: list((folder / "1" / "checkpoints").glob("last.ckpt")))
    # As a terminal sends Ctrl-C: to all processes of the command.
    send = os.killpg if number == signal.SIGINT else os.kill
    send(sweep.pid, number)
    sweep.wait(timeout=60)
    # The job notices, keeps a checkpoint and ends.
    wait_until(lambda: holder(folder / "1" / ".lock") is None)
    table = (folder / "jobs.txt").read_text()
    assert "seed=1" in table
    assert "seed=3" not in table
    assert not (folder / "1" / "model.safetensors").exists()
    assert "the training was interrupted" in (folder / "1" / "traceback.txt").read_text()
    before = written_at(folder, [0])

    assert start(folder, cache, "seed=1,2,3", *settings).wait(timeout=SECONDS) == 0
    assert [job["status"] for job in jobs_of(folder)] == ["done"] * 3
    assert written_at(folder, [0]) == before
    output = (folder / "output.txt").read_text()
    assert "job 0 was done before" in output
    assert "job 1 goes on from" in output
    assert "seed=3" in (folder / "jobs.txt").read_text()
    assert result(folder, 1)["status"] == "done"
    whole = python(
        "cmrvlm.train",
        *FAST,
        *settings,
        "seed=2",
        f"paths.cache={cache}",
        f"out={tmp_path / 'one'}",
    )
    assert whole.returncode == 0, whole.stderr
    resumed, expected = (
        load_file(run / "model.safetensors") for run in (folder / "1", tmp_path / "one")
    )
    assert all(torch.equal(value, resumed[name]) for name, value in expected.items())


def test_workers_and_jobs_of_a_killed_sweep_end(tmp_path, cache):
    """Two jobs run side by side, and a third waits."""
    folder = tmp_path / "sweep"
    endless = ("trainer.max_steps=100000", "callbacks.checkpoint.every_n_train_steps=1")
    sweep = start(folder, cache, "+sweep=joblib", "seed=1,2,3", *endless)
    locks = [folder / str(job) / ".lock" for job in range(2)]
    for lock in locks:
        wait_until(lambda lock=lock: list((lock.parent / "checkpoints").glob("last.ckpt")))
    sweep.kill()
    sweep.wait(timeout=60)
    for lock in locks:
        wait_until(lambda lock=lock: holder(lock) is None)
        # The process that watches the job writes why it ended.
        reason = lock.parent / "traceback.txt"
        wait_until(reason.is_file)
        assert "interrupted" in reason.read_text()
    # No worker takes the third one.
    time.sleep(5)
    assert not (folder / "2").exists()
