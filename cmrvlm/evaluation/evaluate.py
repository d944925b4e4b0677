"""A run scored on the test part of its own data: tasks, probes and subsets, with tables, answers and figures."""

from __future__ import annotations

import datetime
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console

from cmrvlm.config.build import build
from cmrvlm.config.command import Config, with_changes
from cmrvlm.errors import CmrvlmError
from cmrvlm.evaluation import figures, tables
from cmrvlm.evaluation.asking import Asked, Questioner
from cmrvlm.evaluation.conditions import PROBES, Condition, conditions, partners
from cmrvlm.evaluation.processes import (
    gathered,
    join_processes,
    own_device,
    own_share,
    rank_and_count,
)
from cmrvlm.evaluation.results import (
    Bootstrap,
    Tree,
    add_differences,
    answer_rows,
    as_tree,
    statistics,
    write_answers,
    write_replicates,
)
from cmrvlm.inference.answering import device_of
from cmrvlm.inference.mask_reading import MaskReading
from cmrvlm.language_model.decoding import Decode
from cmrvlm.metrics.bert_score import bert_scores, check_bert_model
from cmrvlm.metrics.statistic import Weights
from cmrvlm.metrics.text import BLEU_TOKENIZERS, meteor_missing
from cmrvlm.runs.data import DataModule
from cmrvlm.runs.lineage import SPLIT, TRAIN, read_lineage, trained_on
from cmrvlm.runs.run_folder import TrainedRun, load_run, weights_hash
from cmrvlm.runs.wiring import build_data
from cmrvlm.study.atomic_files import write_json
from cmrvlm.tasks.base import Task


def evaluation_data(run: TrainedRun, changes: Config) -> DataModule:
    """Return the run's data module on the run's own split.

    A change of the source, its root or its path means other data: the split is then made anew. Broken
    studies are left out and counted, however many there are.

    Args:
        run: Trained run.
        changes: Changes to the settings of its data.
    """
    config = json.loads(json.dumps(run.config))
    if "_target_" in (changes.get("source") or {}):
        config["data"].pop("source")  # another source has other settings
    config["data"] = with_changes(config["data"], changes)
    other_source = bool(
        {"source", "root", "path", "_target_", "split_file", "shares"} & set(changes)
    )
    if "root" in changes and "root" in config["data"].get("source", {}):
        config["data"]["source"]["root"] = changes["root"]
    split = run.folder / SPLIT
    if not other_source and split.is_file():
        config["data"]["split_file"] = str(split)
    data = build_data(config, allowed_failures=sys.maxsize)
    data.prepare_data()
    return data


def chosen_tasks(tasks: Mapping[str, Task], names: Sequence[str] | None) -> dict[str, Task]:
    """Return the tasks to ask.

    Raises:
        CmrvlmError: A name is none of the mix's tasks.
    """
    unknown = [name for name in names or () if name not in tasks]
    if unknown:
        raise CmrvlmError(
            f"unknown task '{unknown[0]}'",
            field="tasks",
            remedy=f"Tasks of this run: {', '.join(tasks)}.",
        )
    return {name: task for name, task in tasks.items() if not names or name in names}


@dataclass
class Scored:
    """Answers under one condition with their scores."""

    asked: Asked
    tree: Tree
    replicates: dict[str, Weights]
    rows: list[dict[str, Any]]


class Evaluation:
    """One run asked under several conditions.

    Args:
        config: Plain configuration of `conf/evaluate.yaml`.

    Raises:
        CmrvlmError: The part of the split is empty, or a setting is unknown.
    """

    def __init__(self, config: Config) -> None:
        self.config, self.out = config, Path(config["out"])
        self.bert = {
            name: value
            for name, value in (config.get("bert_score") or {}).items()
            if value is not None
        }
        if self.bert:
            check_bert_model(**self.bert)
        self.device = own_device(device_of(config["device"]))
        self.run = load_run(Path(config["run"]))
        self.run.model.to(self.device)
        self.conditions = conditions(
            config["subsets"], config["probes"], list(self.run.model.encoders)
        )
        self.data = evaluation_data(self.run, config["data"])
        self.studies = list(self.data.split.get(config["part"], ()))
        if not self.studies:
            raise CmrvlmError(
                f"part '{config['part']}' holds no study",
                field="part",
                remedy="Set data.shares, or choose another part.",
            )
        patient_of = self.data.patient_of()
        self.trained_on = self._leave_out_trained_on(patient_of)
        self.broken: dict[str, str] = self.data.failures_of(config["part"])
        self.tasks = chosen_tasks(self.data.mixture.tasks, config["tasks"])
        self.decode: Decode = build(config["decoding"], "decoding")
        self.reading: MaskReading = build(config["masks"], "masks")
        self.questioner = Questioner(
            self.run.model,
            self.run.collator,
            self.tasks,
            config["max_new_tokens"],
            config["cases_per_task"],
            self.data.load_study,
            partners(patient_of, self.studies),
            config["studies_at_once"],
            self.decode,
            self.reading,
            lowercase=config["lowercase"],
        )
        self.bootstrap = Bootstrap.of(
            [patient_of[study] for study in self.studies], config["bootstrap"]
        )
        self.synthetic = bool(self.data.load_study(self.studies[0]).synthetic)

    def _leave_out_trained_on(self, patient_of: Mapping[str, str]) -> dict[str, int]:
        """Leave out studies of patients whom the run, or one that it began from, was trained on, and count them.

        Who asks for the part that is trained on gets it.

        Raises:
            CmrvlmError: No study is left.
        """
        if self.config["part"] == TRAIN:
            return {"studies": 0, "patients": 0}
        known = trained_on(read_lineage(self.run.folder, patient_of), self.studies, patient_of)
        left = [study for study in self.studies if study not in set(known)]
        if not left:
            raise CmrvlmError(
                f"the run was trained on the patients of all {len(known)} studies",
                field="data",
                remedy="Give data of other patients, or part=train to score what was trained on.",
            )
        self.studies = left
        return {"studies": len(known), "patients": len({patient_of[study] for study in known})}

    def score(self, condition: Condition, full: Asked | None) -> Scored:
        """Ask under one condition and score."""
        loader = self.data.question_loader(
            own_share(self.studies), condition.shown, paraphrased=condition.probe == "paraphrase"
        )
        panel = self.out / "panel.png" if full is None and rank_and_count()[0] == 0 else None
        asked = gathered(self.questioner.ask(loader, condition, full, panel), self.studies)
        extra = None
        if self.bert:
            free_text = [name for name, task in self.tasks.items() if task.is_free_text]
            extra = {name: partial(bert_scores, **self.bert) for name in free_text}
        found = statistics(asked, self.tasks, full, extra)
        tree, replicates = as_tree(found, asked, self.bootstrap)
        return Scored(asked, tree, replicates, answer_rows(asked, self.tasks, found))

    def settings(self) -> dict[str, Any]:
        """Everything that the numbers depend on."""
        config = self.config
        return {
            "part": config["part"],
            "studies": len(self.studies),
            "patients": len(self.bootstrap.patients),
            "left_out_trained_on": self.trained_on,
            "synthetic": self.synthetic,
            "weights": weights_hash(self.run.folder),
            "data": self.data.content_hash(self.studies),
            "study_ids": hashlib.sha256("/".join(self.studies).encode()).hexdigest()[:16],
            "preprocessing": self.run.preprocessing.spec(),
            "languages": list(self.data.mixture.languages),
            "context": list(self.data.mixture.context),
            "tasks": list(self.tasks),
            "decoding": f"{self.decode}; closed questions among the answers that they allow, reports in their outline",
            "masks": str(self.reading),
            "max_new_tokens": config["max_new_tokens"],
            "cases_per_task": config["cases_per_task"],
            "studies_at_once": config["studies_at_once"],
            "cleaning": "lower case" if config["lowercase"] else "none",
            "text_scale": "0 to 1",
            "bleu_tokenizers": BLEU_TOKENIZERS,
            "rouge_and_meteor_tokenizer": "words, single characters for Chinese",
            "meteor": meteor_missing() or "WordNet of nltk",
            "bert_score": self.bert or "off",
            "intervals": f"2.5 to 97.5 %, {config['bootstrap']} resamples of patients, seed 0",
            "probes": {one.probe: PROBES[one.probe] for one in self.conditions if one.probe},
            "device": self.device.type,
            "versions": {
                name: version(name) for name in ("cmrvlm", "torch", "transformers", "monai")
            },
        }


def evaluate(config: Config) -> dict[str, Any]:
    """Evaluate as `conf/evaluate.yaml` says, write the results, and return the content of `metrics.json`.

    Args:
        config: Plain configuration.

    Raises:
        CmrvlmError: A setting is unknown, or there is nothing to evaluate on.
    """
    join_processes()
    evaluation = Evaluation(config)
    evaluation.out.mkdir(parents=True, exist_ok=True)
    full = evaluation.score(evaluation.conditions[0], None)
    probes: dict[str, Tree] = {}
    subsets: dict[str, Tree] = {}
    rows = list(full.rows)
    failures = evaluation.broken | full.asked.failures
    for condition in evaluation.conditions[1:]:
        scored = evaluation.score(condition, full.asked)
        if condition.probe:
            probes[condition.name] = scored.tree
        else:
            add_differences(
                scored.tree, scored.asked, full.asked, evaluation.tasks, evaluation.bootstrap
            )
            subsets[condition.name] = scored.tree
        rows += scored.rows
        for study, reason in scored.asked.failures.items():
            failures.setdefault(study, f"{condition.name}: {reason}")
    rows += [
        {"study": study, "subset": "full", "probe": "", "failure": reason}
        for study, reason in evaluation.broken.items()
    ]
    content = {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "tasks": full.tree,
        "probes": probes,
        "subsets": subsets,
        "failures": failures,
        "settings": evaluation.settings(),
    }
    rank, _ = rank_and_count()
    if rank > 0:
        return content
    write_json(evaluation.out / "metrics.json", content)
    write_answers(rows, evaluation.out / "answers.parquet")
    write_replicates(evaluation.out / "replicates.parquet", evaluation.bootstrap, full.replicates)
    _figures(evaluation, full, subsets)
    _tables(evaluation, full, probes, subsets, failures)
    return content


def _figures(evaluation: Evaluation, full: Scored, subsets: Mapping[str, Tree]) -> None:
    """Draw agreement, calibration and scores by sequences shown, for the tasks that have them."""
    rows_by_task = full.asked.by_task()
    pairs: dict[str, list[tuple[float, float]]] = {}
    calibrations = {}
    for name, task in evaluation.tasks.items():
        answers = [full.asked.answers[row] for row in rows_by_task.get(name, [])]
        pairs |= task.stated_and_true(answers)
        calibration = task.calibration(answers)
        if calibration is not None:
            calibrations[name] = calibration
    figures.bland_altman(pairs, evaluation.out / "bland_altman.png")
    figures.reliability(calibrations, evaluation.out / "reliability.png")
    figures.subset_map(subsets, evaluation.out / "subsets.png")


def _tables(
    one: Evaluation,
    full: Scored,
    probes: Mapping[str, Tree],
    subsets: Mapping[str, Tree],
    failures: Mapping[str, str],
) -> None:
    kind = "synthetic phantoms" if one.synthetic else "studies"
    parts = [
        (
            *tables.score_rows(full.tree, probes),
            f"{len(one.studies)} {kind} of the {one.config['part']} part",
        )
    ]
    if probes:
        parts.append((*tables.probe_rows(probes), "Answers that probes leave unchanged"))
    if subsets:
        metric_of = {name: task.subset_metric or task.primary for name, task in one.tasks.items()}
        parts.append(
            (
                *tables.subset_rows(full.tree, subsets, metric_of),
                "Sequences shown (difference from all)",
            )
        )
    console = Console(width=150)
    for head, rows, title in parts:
        console.print(tables.rich_table(head, rows, title))
    if one.trained_on["studies"]:
        console.print(
            f"left out: {one.trained_on['studies']} studies of {one.trained_on['patients']} patients "
            "whom the run, or one that it began from, was trained on"
        )
    for study, reason in failures.items():
        console.print(f"failed: {study}: {reason}", markup=False)
    (one.out / "metrics.md").write_text("\n".join(tables.markdown(*part) for part in parts))
