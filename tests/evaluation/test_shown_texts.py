"""What is scored is what users get: texts and targets say only what the shown series can show."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import numpy as np
import pytest

from cmrvlm.evaluation import asking
from cmrvlm.evaluation.asking import Questioner
from cmrvlm.evaluation.conditions import Condition, all_subsets
from cmrvlm.evaluation.kept_answers import KeptAnswers
from cmrvlm.inference.texts import limited_to_shown
from cmrvlm.instructions.answer import AnswerWithTruth
from cmrvlm.reports.visible import visible_text
from cmrvlm.study.evidence import Evidence, visible_labels
from cmrvlm.study.measurements import READ_OUT
from cmrvlm.study.vocabulary import LANGUAGES, SEQUENCES
from cmrvlm.tasks.mixture import Mixture
from cmrvlm.tasks.reporting import CaptionTask, ReportTask, SummaryTask
from cmrvlm.tasks.vqa import VqaOpenTask
from data_modules.sources.phantom.source import PhantomSource
from tests.records import an_answer, an_instruction

TASKS = {task.name: task for task in (ReportTask(), CaptionTask(), VqaOpenTask(), SummaryTask())}
SUBSETS = all_subsets(SEQUENCES)
CLAIM = "LVEF 36 % (reduced); LA 44 mm (normal); scar of the septum; LVEDV unknown ml (normal)."


@pytest.fixture(scope="module")
def studies():
    """One phantom of each disease."""
    source = PhantomSource(count=16, size=32, slices=4, frames=3)
    return [source.load(study_id) for study_id in source.study_ids()]


def still(study):
    """The study with the first frame of each series, over and over."""
    series = {}
    for name, one in study.series.items():
        image = np.repeat(one.image[:, :1], one.image.shape[1], axis=1)
        series[name] = replace(one, image=image)
    return study.with_series(series)


@pytest.mark.parametrize("subset", SUBSETS)
@pytest.mark.parametrize("change", [lambda study: study, still], ids=["moving", "still"])
def test_a_right_answer_loses_nothing(studies, subset, change):
    shown = subset.split("+")
    count = 0
    for study in map(change, studies):
        evidence = Evidence.of(study, shown)
        limited = replace(study, labels=visible_labels(study, shown))
        for name in ("report", "caption", "vqa_open"):
            for case in TASKS[name].cases(limited, shown):
                for language in LANGUAGES:
                    one = TASKS[name].make_instruction(limited, case, language)
                    assert visible_text(one.reference, evidence, language) == one.reference
                    count += 1
    assert count


def ask(study, condition, monkeypatch, read_outs=None):
    """Ask about one study a model that always says the same, as evaluations do."""

    def answers(model, collator, batch, *_, lowercase):
        instructions = [one for _, asked in batch for one in asked]
        return [an_answer(one, CLAIM, read_outs=read_outs or {}) for one in instructions]

    monkeypatch.setattr(asking, "answer_batch", answers)
    questioner = Questioner(
        SimpleNamespace(),
        lambda samples, blind: samples,
        TASKS,
        8,
        None,
        lambda _: study,
        {"a": "b"},
    )
    study = replace(study, study_id="a")
    instructions = Mixture(TASKS, languages=["en"]).all(study, condition.shown)
    loader = _Loader([[(study, instructions)]])
    with TemporaryDirectory() as folder:
        kept = KeptAnswers(Path(folder), condition)
        questioner.ask(loader, kept)
        answers = [one for task in TASKS for one in kept.of_task(task, ["a"]).answers]
    return {one.instruction.task: one for one in answers}


class _Loader(list):
    """Groups of samples, and how many there are."""

    dataset = ("a",)


@pytest.mark.parametrize(
    ("subset", "left"),
    [
        ("full", "LVEF 36 % (reduced); LA 44 mm (normal); scar of the septum;"),
        ("sax", "LVEF 36 % (reduced);"),
        ("lax_4ch", "LA 44 mm (normal);"),
        ("lge", "scar of the septum;"),
        ("sax+lge", "LVEF 36 % (reduced); scar of the septum;"),
    ],
)
@pytest.mark.parametrize("task", ["report", "caption", "vqa_open"])
def test_texts_of_an_ablation_lose_what_is_not_shown(studies, monkeypatch, subset, left, task):
    answers = ask(studies[3], Condition(subset), monkeypatch)
    assert answers[task].text == left
    own = (
        studies[3]
        if subset == "full"
        else studies[3].with_series({name: studies[3].series[name] for name in subset.split("+")})
    )
    # As a user gets it who has these series alone.
    asked = replace(answers[task], text=CLAIM)
    assert limited_to_shown(asked, Evidence.of(own)).text == left


@pytest.mark.parametrize("probe", ["blind", "prompt", "swapped", "paraphrase"])
def test_probes_change_images_and_not_what_may_be_said(studies, monkeypatch, probe):
    answers = ask(studies[3], Condition(probe=probe), monkeypatch)
    assert answers["report"].text == "LVEF 36 % (reduced); LA 44 mm (normal); scar of the septum;"


def test_texts_about_no_image_are_scored_as_they_are(studies, monkeypatch):
    answers = ask(studies[3], Condition("lge"), monkeypatch)
    if "summary" in answers:
        assert answers["summary"].text == CLAIM
    answers = ask(studies[0], Condition(), monkeypatch)
    assert answers["summary"].text == CLAIM


def test_read_outs_of_an_ablation_lose_what_is_not_shown(studies, monkeypatch):
    values = {"measurements": np.zeros(len(READ_OUT), np.float32)}
    for subset, seen in (("lge", ()), ("lax_4ch", ("la_diameter_mm", "lvedd_mm"))):
        answers = ask(studies[3], Condition(subset), monkeypatch, values)
        read = dict(zip(READ_OUT, answers["report"].read_outs["measurements"], strict=True))
        assert all(np.isnan(read[name]) == (name not in seen) for name in ("lvef_percent", *seen))


def test_an_answer_keeps_its_kind():
    one = an_answer(an_instruction(task="report"), CLAIM)
    assert isinstance(limited_to_shown(one, Evidence({})), AnswerWithTruth)
