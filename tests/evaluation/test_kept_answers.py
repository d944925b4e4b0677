"""Answers are kept as they are given: an evaluation goes on where it stopped, and asks nothing twice."""

import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from filelock import FileLock

from cmrvlm.errors import CmrvlmError
from cmrvlm.evaluation import asking, parts, results
from cmrvlm.evaluation.conditions import Condition
from cmrvlm.evaluation.evaluate import evaluate
from cmrvlm.evaluation.kept_answers import KeptAnswers
from cmrvlm.evaluation.results import Bootstrap
from cmrvlm.instructions.question import Region, View
from cmrvlm.metrics.statistic import Auroc, Mean
from cmrvlm.stages.training import train
from cmrvlm.study.study import UserQuestion
from tests.conftest import composed
from tests.records import an_answer, an_instruction

FAST = (
    "tasks=[sequence,segment_lv]",
    "max_new_tokens=4",
    "bootstrap=20",
    "cases_per_task=1",
    "studies_at_once=1",
    "gate=false",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory, cache):
    folder = tmp_path_factory.mktemp("kept") / "run"
    settings = (f"paths.cache={cache}", f"out={folder}", f"run_dir={folder}")
    train(
        composed("+experiment=stage3", "+debug=fast", *settings, "callbacks.samples=null"), folder
    )
    return folder


@pytest.fixture
def count(monkeypatch):
    """Count the groups of studies that are asked about; `count.last` asks no more after it."""
    answer_batch = asking.answer_batch

    class Count:
        groups = 0
        last = None

        def __call__(self, *arguments, **named):
            if self.groups == self.last:
                raise KeyboardInterrupt
            self.groups += 1
            return answer_batch(*arguments, **named)

    counter = Count()
    monkeypatch.setattr(asking, "answer_batch", counter)
    # Each group lies on the disk at once.
    monkeypatch.setattr(parts, "SECONDS_BETWEEN_FILES", 0.0)
    monkeypatch.setattr(asking, "PANEL_BATCHES", 1)
    return counter


def evaluation(run, out, *overrides):
    return evaluate(composed(f"run={run}", f"out={out}", *FAST, *overrides, name="evaluate"))


def files_of(out):
    content = json.loads((out / "metrics.json").read_text())
    content.pop("time")
    return content, pq.read_table(out / "answers.parquet"), (out / "metrics.md").read_text()


_slow = pytest.mark.slow


@pytest.mark.parametrize("last", [pytest.param(1, marks=_slow), pytest.param(3, marks=_slow), 5])
def test_whoever_stops_goes_on_to_the_same_files(run, tmp_path, count, last):
    """Three studies under two conditions; stopped in the first, between them, and in the second."""
    evaluation(run, tmp_path / "whole")
    assert count.groups == 6
    count.groups, count.last = 0, last
    with pytest.raises(KeyboardInterrupt):
        evaluation(run, tmp_path / "halted")
    assert not (tmp_path / "halted" / "metrics.json").exists()
    count.last = None
    evaluation(run, tmp_path / "halted")
    assert count.groups == 6
    assert files_of(tmp_path / "halted") == files_of(tmp_path / "whole")
    assert (tmp_path / "halted" / "panel.png").is_file()


@pytest.mark.slow  # evaluates seven times
def test_only_what_is_new_is_asked(run, tmp_path, count):
    evaluation(run, tmp_path, "probes=null")
    assert count.groups == 3
    first = files_of(tmp_path)[0]
    for unchanged in ("bootstrap=30", "+data.evaluation_batch_size=1"):
        evaluation(run, tmp_path, "probes=null", unchanged)
    assert count.groups == 3
    assert files_of(tmp_path)[0]["tasks"] == first["tasks"]
    evaluation(run, tmp_path, "probes=[blind]", "subsets=[sax]")
    assert count.groups == 9
    for changed in ("max_new_tokens=5", "tasks=[sequence]", "resume=false"):
        before = count.groups
        evaluation(run, tmp_path, "probes=null", changed)
        assert count.groups == before + 3, changed


def test_a_study_that_failed_is_not_asked_again(run, tmp_path, count, monkeypatch):
    load = asking.Questioner._prepared

    def failing(self, condition, study, instructions):
        if study.study_id == broken:
            raise CmrvlmError("no row is long enough")
        return load(self, condition, study, instructions)

    broken = json.loads((run / "split.json").read_text())["test"][1]
    monkeypatch.setattr(asking.Questioner, "_prepared", failing)
    first = evaluation(run, tmp_path, "probes=null")
    second = evaluation(run, tmp_path, "probes=null")
    assert first["failures"] == second["failures"] == {broken: "no row is long enough"}
    assert count.groups == 2


@pytest.mark.slow  # evaluates four times
def test_whoever_goes_back_to_earlier_settings_finds_the_answers(run, tmp_path, count):
    first = evaluation(run, tmp_path, "probes=null")
    evaluation(run, tmp_path, "probes=null", "max_new_tokens=5")
    theirs = tmp_path / "asked" / "notes.txt"
    theirs.write_text("mine")
    asked = count.groups
    assert evaluation(run, tmp_path, "probes=null")["tasks"] == first["tasks"]
    assert count.groups == asked
    evaluation(run, tmp_path, "probes=null", "resume=false")
    assert theirs.read_text() == "mine"


def test_two_evaluations_do_not_write_into_one_folder(run, tmp_path):
    refused = pytest.raises(CmrvlmError, match="another evaluation writes into this folder")
    with FileLock(tmp_path / ".lock"), refused:
        evaluation(run, tmp_path)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + bytes(range(256)) * 8 + b"PAR1"])
def test_a_damaged_file_of_answers_is_named(run, tmp_path, content):
    out = tmp_path / "out"
    evaluation(run, out, "tasks=[sequence]", "probes=null")
    path = next((out / "asked").glob("*/full/*.parquet"))
    path.write_bytes(content)
    with pytest.raises(CmrvlmError, match="are damaged") as caught:
        evaluation(run, out, "tasks=[sequence]", "probes=null")
    assert f"{path.parent}" in str(caught.value)


def full_instruction():
    """An instruction with every attribute set."""
    return an_instruction(
        study_id="s 1",
        task="vqa_closed",
        language="zh",
        prompt="左心室？ {a}\n\u2028",
        views=(View("sax", 3, None), View("lge")),
        key="q/1",
        region=Region("sax", "lv", (1, 4), (0, 2), ("ed", None), as_box=True),
        options=("A", "B"),
        allowed=("A.", "B."),
        outline=("Structure:", "LGE:"),
        absent="There is none.",
        answer="EF <lvef_percent> %",
        truth="DCM+MI",
        values={"lvef_percent": 1 / 3},
        source=UserQuestion("lge", "zh", "?", "A", ("A", "B"), ("sax",)),
    )


def test_answers_come_back_as_they_were(tmp_path):
    told = an_answer(
        full_instruction(),
        "text\u0000 <SEG>",
        truncated=True,
        lowercase=True,
        measures={"dice": 0.1 + 0.2, "hd95_mm": None},
        read_outs={"disease": np.array([0.1, np.nan, 1e-30], np.float32)},
    )
    plain = an_answer(an_instruction(study_id="s 2", task="phase"), "")
    kept = KeptAnswers(tmp_path, Condition(probe="swapped"))
    kept.add("s 2", "p", [plain], [None])
    kept.add("s 1", "q", [told], [True])
    kept.add("s 3", "q", [], [])
    kept.add_failure("s 4", "why [/red]")
    assert kept.studies() == set()
    kept.save()
    assert kept.studies() == {"s 1", "s 2", "s 3", "s 4"}
    assert kept.failures() == {"s 4": "why [/red]"}
    assert kept.identities() == {("s 1", "vqa_closed", "q/1"), ("s 2", "phase", "")}
    asked = kept.of_task("vqa_closed", ["s 1", "s 2", "s 3", "s 4"])
    (found,) = asked.answers
    np.testing.assert_array_equal(found.read_outs["disease"], told.read_outs["disease"])
    assert replace(found, read_outs={}) == replace(told, read_outs={})
    assert (asked.patients, asked.changed) == (["q"], [True])
    assert kept.of_task("phase", ["s 1", "s 2"]).answers == [plain]


def test_resamples_do_not_depend_on_how_many_are_held(monkeypatch):
    rng = np.random.default_rng(0)
    patients = [f"p{index}" for index in rng.integers(0, 20, 70)]
    bootstrap = Bootstrap.of(patients, 33)
    scores = rng.normal(size=70)
    statistics = [Mean(scores), Auroc(scores, rng.random(70) > 0.5)]
    whole = [statistic(bootstrap.rows(patients)) for statistic in statistics]
    for weights in (1, 70, 71, 700, 10**6):
        monkeypatch.setattr(results, "_WEIGHTS_AT_ONCE", weights)
        np.testing.assert_allclose(bootstrap.resampled(statistics, patients), whole, rtol=1e-12)
