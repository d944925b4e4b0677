"""Multirun: equal jobs are equal, jobs do not share folders, and the sweep ends with a table."""

import json

from cmrvlm.stages.callbacks.sweep_table import sweep_table, write_result
from tests.conftest import CONF
from tests.test_entry_points import python

FAST = ("+experiment=stage3", "+debug=fast", "callbacks.samples=null")


def test_equal_jobs_are_equal_and_the_table_lists_them(tmp_path, cache):
    done = python("cmrvlm.train", "-m", *FAST, "seed=1,1,2", f"paths.cache={cache}", f"hydra.sweep.dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    metrics = [json.loads((tmp_path / str(job) / "result.json").read_text())["metric"] for job in range(3)]
    assert metrics[0] == metrics[1] != metrics[2]
    losses = [(tmp_path / str(job) / "logs" / "metrics.csv").read_text() for job in range(2)]
    assert losses[0] == losses[1]
    assert "seed=2" in done.stdout
    assert "done" in (tmp_path / "jobs.txt").read_text()


def test_optuna_searches_and_finds_a_best_value(tmp_path, cache):
    done = python("cmrvlm.train", "-m", *FAST, "+sweep=optuna", "hydra.sweeper.n_trials=2", f"paths.cache={cache}",
                  f"hydra.sweep.dir={tmp_path}")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "best_value" in (tmp_path / "optimization_results.yaml").read_text()


def test_failed_job_is_in_the_table(tmp_path):
    write_result(tmp_path / "0", ["a=1"], "done", 0.25)
    (tmp_path / "1").mkdir()
    table = sweep_table(tmp_path)
    assert list(table.columns[2].cells) == ["done", "failed"]
    assert list(table.columns[3].cells) == ["0.2500", ""]
    assert sweep_table(tmp_path / "none").row_count == 0


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
