"""Multirun: equal jobs are equal, no job ends another, and a sweep ends with a table and a status."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import RunMode
from omegaconf import OmegaConf
from rich.console import Console

from cmrvlm.stages.callbacks.sweep_table import SweepTable, jobs_of, recorded, sweep_table
from tests.conftest import CONF, ROOT
from tests.stages.test_training import SMALL
from tests.test_entry_points import python

FAST = (
    "+experiment=stage3",
    "+debug=fast",
    "data.trial=false",
    "callbacks.samples=null",
    *SMALL,
)


def result(folder, job):
    return json.loads((folder / str(job) / "result.json").read_text())


@pytest.mark.slow
def test_equal_jobs_are_equal_and_the_table_lists_them(tmp_path, cache):
    done = python(
        "cmrvlm.train",
        "-m",
        *FAST,
        "seed=1,1,2",
        f"paths.cache={cache}",
        f"hydra.sweep.dir={tmp_path}",
    )
    assert done.returncode == 0, done.stderr
    metrics = [result(tmp_path, job)["metric"] for job in range(3)]
    assert metrics[0] == metrics[1] != metrics[2]
    losses = [(tmp_path / str(job) / "logs" / "metrics.csv").read_text() for job in range(2)]
    assert losses[0] == losses[1]
    assert "seed=2" in done.stdout
    assert "done" in (tmp_path / "jobs.txt").read_text()
    assert (tmp_path / "0" / "train.log").read_text()


def holder(path):
    """The process that holds a file open, as a training does with the lock of its run folder; None where none does."""
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if link.readlink() == path:
                return int(link.parts[2])
        except OSError:  # the process, or its file, is gone
            continue
    return None


@pytest.mark.slow  # trains four jobs
@pytest.mark.skipif(
    not Path("/proc/self/fd").is_dir(), reason="processes are found by their open files"
)
@pytest.mark.parametrize("launcher", ["joblib", "basic"])
def test_jobs_that_fail_or_are_killed_end_no_other_and_are_all_named(tmp_path, cache, launcher):
    """The first two fail, each by itself, the third is killed, and the last is done."""
    extra = ["+sweep=joblib"] if launcher == "joblib" else []
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "cmrvlm.train",
        "-m",
        *FAST,
        *extra,
        "data.batch_size=1000,4",
        "seed=1,2",
        f"paths.cache={cache}",
        f"hydra.sweep.dir={tmp_path}",
    ]
    with (tmp_path / "output.txt").open("w") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=output,
            stderr=output,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        end, found = time.monotonic() + 200, None
        while found is None and process.poll() is None and time.monotonic() < end:
            found = (
                holder(tmp_path / "2" / ".lock") if (tmp_path / "2" / ".lock").exists() else None
            )
            time.sleep(0.01)
        assert found is not None
        os.kill(found, signal.SIGKILL)
        assert process.wait(timeout=200) == 1
    text = (tmp_path / "output.txt").read_text()
    jobs = jobs_of(tmp_path)
    assert [job["status"] for job in jobs] == ["failed", "failed", "failed", "done"], text[-3000:]
    assert all("fewer than one batch of 1000" in job["error"] for job in jobs[:2])
    assert "process of this job was killed by signal 9" in jobs[2]["error"]
    table = (tmp_path / "jobs.txt").read_text()
    for words in (table, text):
        assert all(
            word in words for word in ("data.batch_size=1000", "seed=2", "failed", "done", "killed")
        )
    for job, cause in enumerate(("CmrvlmError", "CmrvlmError", "killed by signal 9")):
        assert result(tmp_path, job)["status"] == "failed"
        assert cause in (tmp_path / str(job) / "traceback.txt").read_text()
        assert not (tmp_path / str(job) / "model.safetensors").exists()
    assert (tmp_path / "3" / "model.safetensors").exists()
    assert not (tmp_path / "3" / "traceback.txt").exists()
    assert "3 jobs failed: 0, 1, 2" in text


@pytest.mark.slow  # three trainings, each a process
def test_optuna_searches_and_finds_a_best_value_though_a_trial_fails(tmp_path, cache):
    done = python(
        "cmrvlm.train",
        "-m",
        *FAST,
        "+sweep=optuna",
        "hydra.sweeper.n_trials=3",
        "data.batch_size=choice(4,1000)",
        f"paths.cache={cache}",
        f"hydra.sweep.dir={tmp_path}",
    )
    jobs = jobs_of(tmp_path)
    assert len(jobs) == 3
    assert done.returncode == int(any(job["status"] == "failed" for job in jobs)), done.stderr
    assert "best_value" in (tmp_path / "optimization_results.yaml").read_text()


def job_end(folder, number, overrides, value):
    config = OmegaConf.create(
        {
            "hydra": {
                "mode": RunMode.MULTIRUN,
                "job": {"num": number},
                "overrides": {"task": overrides},
                "sweep": {"dir": "."},
                "runtime": {"cwd": str(folder)},
            }
        }
    )
    failed = isinstance(value, Exception)
    job = JobReturn()
    job.status, job.return_value = (JobStatus.FAILED if failed else JobStatus.COMPLETED), value
    SweepTable().on_job_end(config, job)
    return job


def test_a_failed_job_returns_nothing_and_user_text_is_no_markup(tmp_path):
    assert job_end(tmp_path, 0, ["a=1", "b=[/red]"], 0.25).return_value == 0.25
    assert (
        job_end(tmp_path, 1, ["c=[bold]x"], ValueError("no [/red] here\nmore")).return_value is None
    )
    table = sweep_table(tmp_path)
    assert list(table.columns[2].cells) == ["done", "failed"]
    assert list(table.columns[3].cells) == ["0.2500", ""]
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(table)
    text = console.export_text()
    assert "b=[/red]" in text
    assert "no [/red] here" in text
    assert sweep_table(tmp_path / "none").row_count == 0


def test_a_job_leaves_its_traceback_and_a_later_one_takes_it_away(tmp_path):
    with pytest.raises(ValueError, match="broken"), recorded(tmp_path, ["a=1"]):
        raise ValueError("broken")
    assert json.loads((tmp_path / "result.json").read_text())["status"] == "failed"
    assert "broken" in (tmp_path / "traceback.txt").read_text()
    with recorded(tmp_path, ["a=1"]) as found:
        found["metric"] = 1.0
    assert json.loads((tmp_path / "result.json").read_text()) == {
        "overrides": ["a=1"],
        "status": "done",
        "metric": 1.0,
    }
    assert not (tmp_path / "traceback.txt").exists()


@pytest.mark.parametrize(
    ("variables", "writes"),
    [
        ({}, True),
        ({"LOCAL_RANK": "0"}, True),
        ({"LOCAL_RANK": "1"}, False),
        ({"RANK": "2", "LOCAL_RANK": "0"}, False),
        ({"SLURM_PROCID": "3"}, False),
    ],
)
def test_the_first_process_of_a_job_alone_leaves_its_result(
    variables, writes, tmp_path, monkeypatch
):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with recorded(tmp_path, ["a=1"]) as found:
        found["metric"] = 1.0
    assert (tmp_path / "result.json").exists() == writes
    with pytest.raises(ValueError, match="broken"), recorded(tmp_path, ["a=1"]):
        raise ValueError("broken")
    assert (tmp_path / "traceback.txt").exists() == writes


@pytest.mark.slow  # trains every experiment
def test_every_experiment_runs(tmp_path, cache):
    done = python(
        "cmrvlm.train",
        "-m",
        "+experiment=glob(*)",
        "+debug=fast",
        f"paths.cache={cache}",
        f"hydra.sweep.dir={tmp_path}",
    )
    assert done.returncode == 0, done.stderr
    results = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("*/result.json"))]
    assert len(results) == len(list((CONF / "experiment").glob("*.yaml")))
    assert {one["status"] for one in results} == {"done"}


@pytest.mark.slow
def test_a_job_knows_its_number_and_runs_once(tmp_path, cache):
    """Although a file of the user's says that everything is a sweep."""
    own = tmp_path / "conf" / "mine"
    own.mkdir(parents=True)
    (own / "multi.yaml").write_text(
        "# @package _global_\nhydra: {mode: MULTIRUN}\nseed: ${hydra:job.num}\n"
    )
    (tmp_path / "sweep" / "jobs").mkdir(parents=True)
    (tmp_path / "sweep" / "jobs" / "mine.sh").write_text("mine")
    done = python(
        "cmrvlm.train",
        "--config-dir",
        str(tmp_path / "conf"),
        *FAST,
        "+mine=multi",
        "optimizer.lr=0.001,0.002",
        f"paths.cache={cache}",
        f"hydra.sweep.dir={tmp_path / 'sweep'}",
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert [job["status"] for job in jobs_of(tmp_path / "sweep")] == ["done", "done"]
    seeds = [
        yaml.safe_load((tmp_path / "sweep" / str(job) / "config.yaml").read_text())["seed"]
        for job in range(2)
    ]
    assert seeds == [0, 1]
    assert (tmp_path / "sweep" / "jobs" / "mine.sh").read_text() == "mine"


@pytest.mark.slow  # a training in a process of its own
def test_a_sweep_that_is_ended_ends_its_job(tmp_path, cache):
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "cmrvlm.train",
        "-m",
        *FAST,
        "seed=1,2",
        "trainer.max_steps=100000",
        f"paths.cache={cache}",
        f"hydra.sweep.dir={tmp_path}",
    ]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    lock, end, job = tmp_path / "0" / ".lock", time.monotonic() + 100, None
    while job is None and time.monotonic() < end:
        job = holder(lock) if lock.exists() else None
        time.sleep(0.05)
    assert job is not None
    process.terminate()
    process.wait(timeout=60)
    while holder(lock) is not None and time.monotonic() < end + 60:
        time.sleep(0.1)
    assert holder(lock) is None
    assert not (tmp_path / "1").exists()
