"""The measurement of a GPU: parts that fail, hang or have no time cost themselves alone."""

import json
import os
import time

import pytest
import torch

from experiments.gpu.bench import Bench, Case, counted_flop, relative_difference
from experiments.gpu.guard import SkippedError, rows_apart, rows_of, run_parts
from experiments.gpu.run import PARTS, measure
from experiments.gpu.setups import architecture
from experiments.gpu.tables import tables


@pytest.fixture
def bench(tmp_path):
    return Bench(torch.device("cpu"), True, tmp_path, time.monotonic() + 100)


def raising(error):
    raise error


def mixed(bench):
    """Cases that end in every way."""
    yield Case("first", lambda: {"value": 1})
    yield Case("broken", lambda: raising(RuntimeError("mat1 and mat2\nmust agree")))
    yield Case("impossible", lambda: raising(SkippedError("there is no such card")))
    yield Case("last", lambda: {"value": 2})


def unbuilt(bench):
    yield Case("first", lambda: {"value": 1})
    raise MemoryError("no room")


def crashing(bench):
    yield Case("first", lambda: {"value": 1})
    yield Case("crash", lambda: os._exit(7))


def hanging(bench):
    yield Case("first", lambda: {"value": 1})
    yield Case("hang", lambda: time.sleep(60))


def test_a_case_that_fails_costs_itself_alone(bench):
    first, broken, impossible, last = rows_of(mixed, bench)
    assert (first["value"], last["value"]) == (1, 2)
    assert broken["error"] == "RuntimeError: mat1 and mat2\nmust agree"
    assert any("raising" in line for line in broken["where"])
    assert impossible["skipped"] == "there is no such card"
    assert "error" not in impossible


def test_a_part_that_cannot_be_built_is_told(bench):
    first, begin = rows_of(unbuilt, bench)
    assert first["value"] == 1
    assert begin["error"] == "MemoryError: no room"


def test_cases_without_time_are_left_out(tmp_path):
    bench = Bench(torch.device("cpu"), False, tmp_path, time.monotonic() + 20)
    cases = [Case("short", lambda: {"value": 1}), Case("long", lambda: {"value": 2}, needs_s=60)]
    short, long = rows_of(lambda bench: iter(cases), bench)
    assert short["value"] == 1
    assert "it needs 60" in long["skipped"]


@pytest.mark.parametrize(
    ("part", "at_most_s", "message"),
    [(crashing, 60, "ended with 7"), (hanging, 4, "ended after 4 s")],
)
def test_a_process_that_crashes_or_hangs_is_ended(part, at_most_s, message, bench):
    started = time.monotonic()
    first, rest = rows_apart(part, bench, at_most_s)
    assert first["value"] == 1
    assert message in rest["error"]
    assert time.monotonic() - started < 40


def test_limits_that_a_process_measured_are_known_to_the_next(bench):
    def part(bench):
        yield Case("limit", lambda: bench.limits.update(bfloat16=4e12) or {})

    assert [row["case"] for row in rows_apart(part, bench, at_most_s=20)] == ["limit"]
    assert bench.rates(2e12, 1.0)["share_of_limit"] == 0.5


def test_rows_are_written_after_each_of_them(bench):
    written = []
    parts = {"one": mixed, "two": unbuilt}
    run_parts(parts, bench, lambda rows: written.append({k: len(v) for k, v in rows.items()}))
    assert written[0] == {"one": 1}
    assert written[-1] == {"one": 4, "two": 2}


def test_nothing_begins_after_the_budget(tmp_path):
    bench = Bench(torch.device("cpu"), False, tmp_path, time.monotonic())
    (row,) = run_parts({"limits": mixed}, bench, lambda rows: None)["limits"]
    assert row["skipped"] == "the budget is used up"


def test_tables_tell_numbers_and_what_lacks_them():
    rows = [
        {"case": "a", "ms": 1.23456, "peak_gb": 2.0},
        {"case": "b", "error": "OutOfMemoryError: tried | to\nallocate"},
        {"case": "c", "skipped": "no time"},
    ]
    text = tables({"encoders": rows})
    assert "| a | 1.23 |" in text
    assert "OutOfMemoryError: tried / to |" in text
    assert "skipped: no time" in text
    widths = {line.count("|") for line in text.splitlines() if line.startswith("|")}
    assert len(widths) == 1


def test_operations_and_differences_are_counted():
    left, right = torch.ones(3, 4), torch.ones(4, 5)
    assert counted_flop(lambda: left @ right) == 2 * 3 * 4 * 5
    assert relative_difference(1.1 * left, left) == pytest.approx(0.1, rel=1e-5)


@pytest.mark.parametrize(("name", "billions"), [("qwen3_4b", 4.02), ("qwen3_0_6b", 0.596)])
def test_architectures_have_the_published_size(name, billions):
    """https://huggingface.co/Qwen: 4.0 billion parameters, and 0.6."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        network = AutoModelForCausalLM.from_config(architecture(name))
    assert sum(p.numel() for p in network.parameters()) / 1e9 == pytest.approx(billions, rel=0.01)


def test_encoders_and_limits_are_measured_on_a_cpu(tmp_path):
    measure(tmp_path, torch.device("cpu"), 60, small=True, chosen=["limits", "encoders"])
    parts = json.loads((tmp_path / "metrics.json").read_text())["parts"]
    assert not [row for rows in parts.values() for row in rows if "error" in row]
    assert all(row["share_of_limit"] > 0 for row in parts["encoders"])
    assert "swin4d, batch 1, forward and backward" in (tmp_path / "table.md").read_text()


@pytest.mark.slow  # it trains, evaluates and predicts
def test_every_part_runs_on_a_cpu(tmp_path):
    results = measure(tmp_path, torch.device("cpu"), 600, small=True, chosen=list(PARTS))
    assert results.keys() == PARTS.keys()
    for name, rows in results.items():
        # Kernels for a GPU are refused by name.
        broken = [row for row in rows if "error" in row and "kernel" not in row["error"]]
        assert not broken, name
        assert any("skipped" not in row and "error" not in row for row in rows) or name == "syncs"
    assert all(row.get("agrees", True) for row in results["agreement"])
