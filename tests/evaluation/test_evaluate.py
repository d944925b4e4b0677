"""Evaluation as a user runs it: every task, probe and subset; the same twice; failures named."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from cmrvlm import compare as compare_module
from cmrvlm.errors import CmrvlmError
from cmrvlm.evaluation.conditions import (
    PROBES,
    Condition,
    all_subsets,
    conditions,
    partners,
    with_images_of,
)
from cmrvlm.evaluation.data import evaluation_data
from cmrvlm.evaluation.evaluate import evaluate
from cmrvlm.evaluation.kept_answers import Asked
from cmrvlm.evaluation.results import (
    Bootstrap,
    add_differences,
    interval,
    statistics,
    unchanged,
    with_intervals,
)
from cmrvlm.evaluation.tables import shown
from cmrvlm.inference.answering import device_of
from cmrvlm.instructions.question import View
from cmrvlm.metrics.statistic import Mean
from cmrvlm.runs.run_folder import load_run, read_config
from cmrvlm.stages.training import train
from cmrvlm.study.vocabulary import SEQUENCES
from cmrvlm.transforms.foreign import FOREIGN
from tests.conftest import ROOT, composed
from tests.records import an_answer, an_instruction

TASKS = set(composed("+experiment=stage3", "out=none", "run_dir=none")["mix"]["tasks"])


@pytest.fixture(scope="module")
def run(tmp_path_factory, cache):
    folder = tmp_path_factory.mktemp("evaluate") / "run"
    train(
        composed(
            "+experiment=stage3",
            "+debug=fast",
            f"paths.cache={cache}",
            f"out={folder}",
            f"run_dir={folder}",
            "callbacks.samples=null",
        ),
        folder,
    )
    return folder


def evaluation(run, out, *overrides):
    fast = ("max_new_tokens=12", "bootstrap=40", "cases_per_task=2")
    return evaluate(composed(f"run={run}", f"out={out}", *fast, *overrides, name="evaluate"))


@pytest.fixture(scope="module")
def whole(run, tmp_path_factory):
    """Everything at once: folder and content."""
    out = tmp_path_factory.mktemp("whole")
    return out, evaluation(run, out, "probes=all", "subsets=all")


def without_time(content):
    return {name: value for name, value in content.items() if name != "time"}


def test_every_task_probe_and_subset_has_the_same_tree(whole):
    out, content = whole
    assert json.loads((out / "metrics.json").read_text()) == content
    assert set(content["tasks"]) == TASKS
    assert set(content["probes"]) == set(PROBES)
    assert set(content["subsets"]) == set(all_subsets(SEQUENCES))
    trees = [content["tasks"], *content["probes"].values(), *content["subsets"].values()]
    for tree in trees:
        assert set(tree) >= TASKS
        for metrics in tree.values():
            for row in metrics.values():
                assert {"value", "low", "high", "n", "undefined"} <= set(row)
                assert row["value"] is None or row["low"] is None or row["low"] <= row["high"]
    for name in (
        "disease.macro_auroc",
        "segment_lv.dice",
        "volume.lvef_mae_percent",
        "report.finding_f1",
        "vqa_closed.accuracy",
        "detect.iou",
        "prognosis.c_index",
    ):
        task, metric = name.split(".")
        assert metric in content["tasks"][task]


def test_the_full_subset_is_the_full_set_and_differs_by_nothing(whole):
    _, content = whole
    full = content["subsets"]["+".join(SEQUENCES)]
    for task, metrics in content["tasks"].items():
        for metric, row in metrics.items():
            same = full[task][metric]
            assert {k: same[k] for k in row} == row
            if row["value"] is not None:
                assert (
                    same["difference"]["value"]
                    == same["difference"]["low"]
                    == same["difference"]["high"]
                    == 0
                )


def test_one_row_for_each_answer(whole):
    out, content = whole
    rows = pq.read_table(out / "answers.parquet").to_pylist()
    full = [row for row in rows if row["subset"] == "full" and not row["probe"]]
    assert {row["task"] for row in full} == TASKS
    accuracy = np.mean([row["score"] for row in full if row["task"] == "vqa_closed"])
    assert accuracy == pytest.approx(content["tasks"]["vqa_closed"]["accuracy"]["value"], abs=1e-5)
    assert {row["probe"] for row in rows} == {"", *PROBES}
    assert {row["subset"] for row in rows} == {"full", *all_subsets(SEQUENCES)}
    asked = [(row["study"], row["task"], row["question"]) for row in full]
    assert len(set(asked)) == len(asked)
    heads = {"disease": 16, "abnormality": 1, "prognosis": 1}
    for row in rows:
        wanted = heads.get(row["task"]) if row["probe"] != "prompt" else None
        assert (row["probabilities"] is None) == (wanted is None)
        assert wanted is None or (
            len(row["probabilities"]) == wanted and 0 <= min(row["probabilities"]) <= 1
        )
    paraphrased = {row["prompt"] for row in rows if row["probe"] == "paraphrase"}
    assert not paraphrased & {row["prompt"] for row in full}


def test_of_a_run_that_keeps_nothing_what_is_turned_away_is_undefined(whole):
    out, content = whole
    gate = content["gate"]
    studies = content["settings"]["studies"]
    assert set(gate) == {"hearts", "foreign", *FOREIGN}
    assert {row["value"] for row in gate.values()} == {None}
    assert {kind: gate[kind]["undefined"] for kind in FOREIGN} == dict.fromkeys(FOREIGN, studies)
    assert gate["hearts"]["undefined"] == studies
    text = (out / "metrics.md").read_text()
    reason = "not counted, the run keeps no familiarity.safetensors"
    assert f"## Images that are turned away: {reason}" in text
    assert content["settings"]["gate"].startswith(reason)
    assert not any(f"| {images} |" in text for images in gate)


def test_figures_tables_and_settings_are_written(whole):
    out, content = whole
    for name in ("panel.png", "reliability.png", "reliability.svg", "subsets.png", "subsets.svg"):
        assert (out / name).stat().st_size > 1000
    text = (out / "metrics.md").read_text()
    for words in ("| segment_lv | dice |", "mirage", "Sequences shown", "synthetic"):
        assert words in text
    settings = content["settings"]
    for name in (
        "weights",
        "data",
        "study_ids",
        "decoding",
        "max_new_tokens",
        "cleaning",
        "bleu_tokenizers",
        "intervals",
        "meteor",
        "text_scale",
        "preprocessing",
        "languages",
        "tasks",
        "device",
        "versions",
    ):
        assert settings[name] not in (None, "")
    assert settings["synthetic"] is True
    assert settings["studies"] == settings["patients"] == 3


def test_removed_images_leave_nothing_to_segment_by(whole):
    _, content = whole
    prompt = content["probes"]["prompt"]
    assert prompt["disease"]["macro_auroc"]["value"] is None
    assert prompt["segment_lv"]["mask_share"]["value"] == 0
    assert prompt["volume"]["lvef_mae_percent"]["value"] is None
    assert prompt["summary"]["text_accuracy"] == content["tasks"]["summary"]["text_accuracy"]
    assert content["probes"]["swapped"]["summary"]["unchanged_share"]["value"] is None
    assert 0 <= content["probes"]["swapped"]["overall"]["mirage_rate"]["value"] <= 1


@pytest.mark.slow  # evaluates four times
def test_twice_and_at_any_batch_size_and_workers_the_file_is_the_same(run, tmp_path):
    settings = (
        [],
        [],
        ["+data.evaluation_batch_size=1"],
        ["+data.evaluation_batch_size=8", "+data.num_workers=2"],
    )
    texts = []
    for index, extra in enumerate(settings):
        evaluation(run, tmp_path / str(index), "probes=[swapped]", *extra)
        content = json.loads((tmp_path / str(index) / "metrics.json").read_text())
        texts.append(json.dumps(without_time(content)))
    assert len(set(texts)) == 1


@pytest.mark.slow  # evaluates twice
def test_studies_answered_together_score_as_those_answered_alone(run, tmp_path):
    alone, together = (
        evaluation(run, tmp_path / str(count), "probes=[swapped]", f"studies_at_once={count}")
        for count in (1, 3)
    )
    assert alone["settings"].pop("studies_at_once") == 1
    assert together["settings"].pop("studies_at_once") == 3
    for one, other in ((alone["tasks"], together["tasks"]), (alone["probes"], together["probes"])):
        flat, flat_other = (
            {"/".join(path): row for path, row in leaves(tree)} for tree in (one, other)
        )
        assert flat.keys() == flat_other.keys()
        for path, row in flat.items():
            for name, value in row.items():
                assert flat_other[path][name] == (
                    value if value is None else pytest.approx(value, abs=1e-3)
                ), path


def leaves(tree, path=()):
    """Rows of scores with their paths."""
    if "value" in tree:
        yield path, tree
        return
    for name, branch in tree.items():
        yield from leaves(branch, (*path, name))


@pytest.mark.slow  # starts two processes
def test_two_processes_ask_about_each_study_once(run, tmp_path):
    """Five studies on two processes: none is padded in, and the scores are those of one process."""
    arguments = [
        f"run={run}",
        "+data.shares={val: 0.0, test: 1.0}",
        "+data.source.count=5",
        "+data.source.seed=5",
        "probes=[swapped]",
        "max_new_tokens=12",
        "bootstrap=40",
        "cases_per_task=2",
    ]
    threads = torch.get_num_threads()
    torch.set_num_threads(
        1
    )  # as each of the two has: sums over several threads are rounded otherwise
    try:
        one = evaluate(composed(*arguments, f"out={tmp_path / 'one'}", name="evaluate"))
    finally:
        torch.set_num_threads(threads)
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore",
            "-m",
            "torch.distributed.run",
            "--nproc_per_node=2",
            "--standalone",
            "-m",
            "cmrvlm.evaluate",
            *arguments,
            f"out={tmp_path / 'two'}",
        ],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=500,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    two = json.loads((tmp_path / "two" / "metrics.json").read_text())
    assert two["settings"]["studies"] == one["settings"]["studies"] == 5
    for (path, row), (other_path, other) in zip(
        leaves(one["tasks"]), leaves(two["tasks"]), strict=True
    ):
        assert path == other_path
        assert (row["n"], row["undefined"]) == (other["n"], other["undefined"]), path
        # Both have six digits; one in the last of them is a hair more than 1e-6 in binary.
        same = None if other["value"] is None else pytest.approx(other["value"], abs=1.0001e-6)
        assert row["value"] == same, path
    names = (
        pq.read_table(tmp_path / "two" / "answers.parquet")
        .select(["study", "task", "question", "probe"])
        .to_pylist()
    )
    assert len({tuple(row.values()) for row in names}) == len(names)


def test_lower_case_changes_numbers_and_says_so(run, tmp_path):
    raw, lower = (
        evaluation(run, tmp_path / str(i), "tasks=[caption]", "probes=null", f"lowercase={i}")
        for i in ("false", "true")
    )
    assert raw["settings"]["cleaning"] == "none"
    assert lower["settings"]["cleaning"] == "lower case"


def test_tasks_are_chosen_by_name(run, tmp_path):
    content = evaluation(run, tmp_path, "tasks=[phase,disease]", "probes=null")
    assert list(content["tasks"]) == ["phase", "disease"]
    for overrides, words in (
        (["tasks=[diagnosis]"], "unknown task 'diagnosis'"),
        (["probes=[dark]"], "dark"),
        (["subsets=[sax+t1]"], r"sax\+t1"),
        (["part=nothing"], "holds no study"),
    ):
        with pytest.raises(CmrvlmError, match=words):
            evaluation(run, tmp_path, *overrides)


def test_missing_bert_model_is_an_error_before_anything_is_asked(run, tmp_path):
    with pytest.raises(CmrvlmError, match=r"bert_score\.path"):
        evaluation(run, tmp_path, f"bert_score={{path: {tmp_path}, layers: 2}}")
    assert not (tmp_path / "metrics.json").exists()


def test_evaluation_uses_the_run_s_own_split(run):
    loaded = load_run(run)
    same, other = (evaluation_data(loaded, changes) for changes in ({}, {"source": {"seed": 1}}))
    assert same.split == json.loads((run / "split.json").read_text())
    assert all(study.startswith("phantom-1-") for study in other.split["test"])


def test_broken_study_is_failed_and_named_and_never_replaced(run, tmp_path, monkeypatch):
    from data_modules.sources.phantom.source import PhantomSource

    load = PhantomSource.load
    broken = json.loads((run / "split.json").read_text())["test"][1]

    def failing(self, study_id):
        if study_id == broken:
            raise CmrvlmError("the file is truncated", file="lge.nii.gz")
        return load(self, study_id)

    monkeypatch.setattr(PhantomSource, "load", failing)
    content = evaluation(
        run, tmp_path, "tasks=[sequence]", "probes=null", f"+data.cache_dir={tmp_path / 'cache'}"
    )
    assert list(content["failures"]) == [broken]
    assert "truncated" in content["failures"][broken]
    assert content["settings"]["studies"] == 2
    rows = pq.read_table(tmp_path / "answers.parquet").to_pylist()
    assert [row["study"] for row in rows if row["failure"]] == [broken]
    assert broken not in {row["study"] for row in rows if not row["failure"]}


def test_a_study_that_the_model_cannot_take_fails_alone(run, tmp_path, monkeypatch):
    from cmrvlm.instructions.collate import Collator

    call, broken = Collator.__call__, json.loads((run / "split.json").read_text())["test"][0]

    def failing(self, samples, *, blind=False):
        if samples[0][0].study_id == broken:
            raise CmrvlmError("the row is too long", field="llm.max_length")
        return call(self, samples, blind=blind)

    monkeypatch.setattr(Collator, "__call__", failing)
    content = evaluation(run, tmp_path, "tasks=[sequence]", "probes=null")
    assert list(content["failures"]) == [broken]
    rows = pq.read_table(tmp_path / "answers.parquet").to_pylist()
    assert {row["study"] for row in rows if row["failure"] is None} == set(
        json.loads((run / "split.json").read_text())["test"]
    ) - {broken}


def test_conditions_come_in_order_and_all_seven_subsets_exist():
    names = [one.name for one in conditions("all", "all", SEQUENCES)]
    assert names == [
        "full",
        *PROBES,
        "sax+lax_4ch+lge",
        "sax+lax_4ch",
        "sax+lge",
        "lax_4ch+lge",
        "sax",
        "lax_4ch",
        "lge",
    ]
    assert [one.name for one in conditions(["lge+sax"], None, SEQUENCES)] == ["full", "sax+lge"]
    assert [one.name for one in conditions("all", None, ["sax"])] == ["full", "sax"]


def test_swapped_images_are_another_patients(study, source):
    other = source.load(source.study_ids()[1])
    mixed = with_images_of(study, other)
    for name, series in mixed.series.items():
        assert series.image is other.series[name].image
        assert series.mask is study.series[name].mask
    cine = other.series["sax"]
    shorter = replace(
        cine,
        image=cine.image[:, :-1],
        mask=None,
        phases={},
        frame_times_ms=cine.frame_times_ms[:-1],
    )
    series = with_images_of(study, replace(other, series={"sax": shorter})).series["sax"]
    assert (series.mask, series.frame_times_ms) == (None, shorter.frame_times_ms)
    patients = {"a": "1", "b": "1", "c": "2"}
    found = partners(patients, ["a", "b", "c"])
    assert set(found) == {"a", "b", "c"}
    assert all(patients[one] != patients[other] for one, other in found.items())
    many = [f"phantom-1-{index:05d}" for index in range(160)]
    gaps = {
        (int(other[-5:]) - int(one[-5:])) % 16
        for one, other in partners(dict(zip(many, many, strict=True)), many).items()
    }
    assert len(gaps) == 16  # the phantoms' diseases go round by index, the partners' do not
    assert partners({"a": "1"}, ["a"]) == {}
    without = with_images_of(study, replace(other, series={"sax": other.series["sax"]}))
    assert list(without.series) == ["sax"]


def test_intervals_of_a_mean_are_those_of_theory():
    """Bootstrap of a mean over patients against mean +- 1.96 standard errors; answers of a patient go together."""
    rng = np.random.default_rng(0)
    per_patient = rng.normal(0, 1, 200)
    values = np.repeat(per_patient, 3)
    patients = [f"p{i}" for i in range(200) for _ in range(3)]
    bootstrap = Bootstrap.of(patients, 2000)
    low, high = interval(Mean(values)(bootstrap.rows(patients)))
    error = per_patient.std(ddof=1) / np.sqrt(200)
    assert low == pytest.approx(per_patient.mean() - 1.96 * error, abs=0.02)
    assert high == pytest.approx(per_patient.mean() + 1.96 * error, abs=0.02)
    assert interval(np.array([np.nan, np.nan, 1.0])) == (None, None)


def test_undefined_is_said():
    assert shown({"value": None, "low": None}) == "undefined"
    assert shown({"value": 0.5, "low": 0.4, "high": 0.6}, interval=True) == "0.500 (0.400 to 0.600)"
    assert shown(None) == ""


@pytest.mark.slow
def test_runs_are_compared_in_pairs(whole, run, tmp_path, capsys):
    out, content = whole
    evaluation(run, tmp_path / "b", "probes=null", "max_new_tokens=3")
    head, rows = compare_module.compare([out, tmp_path / "b"])
    assert len(head) == 5
    found = {(row[0], row[1]): row for row in rows}
    assert found["segment_lv", "dice"][2].startswith(
        f"{content['tasks']['segment_lv']['dice']['value']:.3f}"
    )
    assert found["disease", "macro_auroc"][4] == "+0.000 (+0.000 to +0.000)"
    compare_module.main([str(out), str(tmp_path / "b")])
    assert "segment_lv" in capsys.readouterr().out
    evaluation(run, tmp_path / "c", "probes=null", "bootstrap=20")
    with pytest.raises(SystemExit):
        compare_module.main([str(out), str(tmp_path / "c")])
    assert "same patients" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        compare_module.main([str(out), str(tmp_path / "none")])
    evaluation(run, tmp_path / "d", "probes=null", "cases_per_task=1")
    with pytest.raises(CmrvlmError, match="evaluated with 1, the first with 2") as refused:
        compare_module.compare([out, tmp_path / "d"])
    assert refused.value.field == "cases_per_task"
    evaluation(run, tmp_path / "e", "probes=null", "tasks=[phase]")
    _, rows = compare_module.compare([tmp_path / "e", out])
    found = {(row[0], row[1]): row for row in rows}
    assert found["segment_lv", "dice"][2] == found["segment_lv", "dice"][4] == ""
    assert (
        found["segment_lv", "dice"][3] == f"{content['tasks']['segment_lv']['dice']['value']:.3f}"
    )


def test_the_hash_of_the_data_is_that_of_its_content(run, source, tmp_path):
    from cmrvlm.config.build import build
    from data_modules.storage.cache import StudyCache

    preprocessing = build(read_config(run)["transform"]["preprocessing"], "transform.preprocessing")
    ids = source.study_ids()[:2]
    one, two = (
        StudyCache(tmp_path / "one", source, preprocessing),
        StudyCache(tmp_path / "two", source, preprocessing),
    )
    for cache in (one, two):
        cache.fill(ids)
    assert one.content_hash(ids) == two.content_hash(ids)
    assert one.content_hash(ids) != one.content_hash(ids[:1])
    path = next(one.path(ids[0]).glob("sax_mask.npy"))
    changed = bytearray(path.read_bytes())
    changed[-1] ^= 1
    path.write_bytes(changed)
    assert one.content_hash(ids) != two.content_hash(ids)


def test_a_device_that_is_not_there_is_named(monkeypatch):
    with pytest.raises(CmrvlmError, match="unknown device 'tpu'"):
        device_of("tpu")
    for there, expected in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert device_of("auto").type == expected
        assert device_of("cpu").type == "cpu"
    with pytest.raises(CmrvlmError, match="no GPU"):
        device_of("cuda")


def said(task, study, texts, *, views=True, answer=""):
    shown = (View("sax"),) if views else ()
    return [
        an_answer(
            an_instruction(study_id=study, task=task, answer=answer, views=shown, key=str(k)), text
        )
        for k, text in enumerate(texts)
    ]


def test_unchanged_answers_are_counted_where_the_truth_changes():
    full = (
        said("disease", "a", ["DCM", "DCM", "HCM", "MI"])
        + said("summary", "a", ["x"], views=False)
        + said("volume", "a", ["EF 40 %"], answer="EF <lvef_percent> %")
    )
    texts = {one.instruction.identity: one.text for one in full}
    answers = said("disease", "a", ["DCM", "NOR", "HCM", "MI"]) + said(
        "summary", "a", ["x"], views=False
    )
    answers += said("volume", "a", ["EF 40 %"], answer="EF <lvef_percent> %")
    swapped = Asked(
        Condition(probe="swapped"), answers, changed=[True, True, False, None, None, True]
    )
    blind = Asked(Condition(probe="blind"), answers, changed=[None] * 6)
    assert unchanged(swapped, texts) == [1.0, 0.0, None, None, None, None]
    assert unchanged(blind, texts) == [1.0, 0.0, 1.0, 1.0, None, None]


def test_changes_of_the_truth_are_those_of_the_other_study(source):
    from types import SimpleNamespace

    from cmrvlm.evaluation.asking import Questioner
    from cmrvlm.tasks.diagnosis import DiseaseTask
    from cmrvlm.tasks.reporting import SummaryTask

    one, same, other = (source.load(source.study_ids()[k]) for k in (0, 16, 1))
    tasks = {"disease": DiseaseTask(), "summary": SummaryTask()}
    asked = [
        task.make_instruction(one, case, "en")
        for task in tasks.values()
        for case in task.cases(one, SEQUENCES)
    ]
    changes = Questioner._changes
    assert changes(SimpleNamespace(tasks=tasks), other, asked) == [True, None]
    assert changes(SimpleNamespace(tasks=tasks), same, asked) == [False, None]


def test_black_images_keep_everything_but_the_images(study):
    from cmrvlm.evaluation.conditions import blackened

    dark = blackened(study)
    for name, series in dark.series.items():
        assert not series.image.any()
        assert series.image.shape == study.series[name].image.shape
        assert series.mask is study.series[name].mask
    assert dark.labels is study.labels


def test_differences_are_over_questions_that_both_were_asked(study):
    from cmrvlm.tasks.diagnosis import DiseaseTask

    task = DiseaseTask()
    case = task.cases(study, SEQUENCES)[0]
    asked = []
    for index in range(4):
        one = replace(task.make_instruction(study, case, "en"), study_id=f"s{index}")
        right = "dilated cardiomyopathy."
        asked.append(an_answer(one, right if index else "myocarditis."))
    patients = [f"s{k}" for k in range(4)]
    nothing = [None] * 4
    full = Asked(Condition(), asked, patients, nothing)
    # The question that goes wrong cannot be asked.
    part = Asked(Condition("sax"), asked[1:], patients[1:], nothing[1:])
    bootstrap = Bootstrap.of(patients, 50)
    cells, _ = with_intervals(statistics(task, part, None), part.patients, bootstrap)
    add_differences(cells, task, part, full, bootstrap)
    row = cells["text_accuracy"]
    assert row["value"] == 1
    assert row["difference"] == {"value": 0.0, "low": 0.0, "high": 0.0, "n": 3}


def test_a_figure_that_is_not_drawn_is_said_and_no_earlier_one_stays(run, tmp_path, capsys):
    names = ("bland_altman", "reliability", "subsets", "panel")
    for name in names:
        (tmp_path / f"{name}.png").write_bytes(b"of an earlier evaluation")
    few = ("tasks=[sequence]", "cases_per_task=1", "gate=false", "probes=[]")
    evaluation(run, tmp_path, *few, "subsets=[sax,lge]")
    printed = capsys.readouterr().out
    for name in names:
        assert f"no {name}.png: " in printed
        assert not (tmp_path / f"{name}.png").exists()
