"""Trainings that are killed go on to the weights of unbroken ones; the full number is an experiment."""

import json
import os
import subprocess
import sys
from collections import Counter

import pytest

from experiments.kills.plan import MOMENTS, plan
from experiments.kills.run import table_of
from experiments.kills.trainings import Training, moment_of
from tests.conftest import ROOT


def test_the_plan_is_drawn_by_its_seed_and_holds_every_moment():
    kills = plan(0)
    assert kills == plan(0) != plan(1)
    assert [kill.number for kill in kills] == list(range(38))
    killed = [kill for kill in kills if kill.signal == "SIGKILL"]
    assert len(killed) == 30
    assert {kill.moment for kill in killed} == set(MOMENTS)
    loadings = Counter(kill.loading for kill in killed)
    assert set(loadings) == {(0, 1), (0, 2), (2, 1), (2, 2)}
    assert min(loadings.values()) >= 7
    assert Counter(kill.signal for kill in kills[30:]) == {"SIGTERM": 4, "SIGINT": 4}
    assert sum(kill.again_s is not None for kill in killed) == 10


@pytest.mark.parametrize(
    ("left", "moment"),
    [
        ("run/checkpoints/.last.ckpt.7.part", "while a checkpoint is written"),
        ("run/.model.safetensors.7.part", "while the final weights are written"),
        ("cache/abc/.writing-x", "while the cache is filled"),
        (None, "in the last batch of an epoch"),
    ],
)
def test_the_moment_is_what_was_left_behind(left, moment, tmp_path):
    training = Training(tmp_path, tmp_path / "cache", 0, 1)
    (tmp_path / "events.txt").write_text("batch 6 5\nbatch 7 6\n")
    if left:
        (tmp_path / left).mkdir(parents=True)
    assert moment_of(training) == moment


def test_the_table_counts_by_signal_and_moment():
    records = [
        {"signal": "SIGKILL", "moment": MOMENTS[1], "equal": True},
        {"signal": "SIGKILL", "moment": MOMENTS[1], "equal": False},
        {"signal": "SIGINT", "moment": MOMENTS[4], "equal": True},
    ]
    assert table_of(records).splitlines()[2:] == [
        "| SIGKILL | while a checkpoint is written | 2 | 1 |",
        "| SIGINT | in a validation | 1 | 1 |",
        "| all | | 3 | 2 |",
    ]


@pytest.mark.slow  # trains an unbroken one, and each kill takes three commands
@pytest.mark.parametrize("number", [9, 24, 35])
def test_a_sample_of_the_kills_ends_with_equal_weights(number, tmp_path):
    """Each in a process of its own: this one may have threads, which no copy of it would have."""
    code = (
        "import sys, json; from pathlib import Path;"
        "from experiments.kills.plan import plan; from experiments.kills.run import kill_and_go_on;"
        f"print(json.dumps(kill_and_go_on(plan(0)[{number}], Path(sys.argv[1]))))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        timeout=1500,
        check=True,
    )
    record = json.loads(done.stdout.splitlines()[-1])
    assert record["equal"], record
    assert record["leftovers"] == []
    assert not record["processes_live_on"]
    if record["signal"] == "SIGINT":
        assert record["status"] == 1
        assert record["checkpoint"]
        assert record["says"].endswith("last.ckpt")
