"""Score a run on the test part of its own data.

Tasks are asked with everything shown, under probes and with subsets of the sequences; written are
tables, answers and figures.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cmrvlm.config.build import build
from cmrvlm.config.command import Config
from cmrvlm.config.terminal import PlainConsole, one_line
from cmrvlm.errors import CmrvlmError
from cmrvlm.evaluation import figures, tables
from cmrvlm.evaluation.asking import Asked, Questioner
from cmrvlm.evaluation.conditions import PROBES, Condition, conditions, partners
from cmrvlm.evaluation.data import evaluation_data
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
from cmrvlm.evaluation.turned_away import MOST_FOREIGN, Rates, turned_away
from cmrvlm.inference.answering import device_of
from cmrvlm.inference.mask_reading import MaskReading
from cmrvlm.language_model.decoding import Decode
from cmrvlm.metrics.bert_score import bert_scores, check_bert_model
from cmrvlm.metrics.statistic import Weights
from cmrvlm.metrics.text import BLEU_TOKENIZERS, meteor_missing
from cmrvlm.runs.lineage import TRAIN, read_lineage, trained_on
from cmrvlm.runs.run_folder import load_run, weights_hash
from cmrvlm.study.atomic_files import write_json
from cmrvlm.tasks.base import Task


def chosen_tasks(tasks: Mapping[str, Task], names: Sequence[str] | None) -> dict[str, Task]:
    """Return the tasks to ask: those named, or all without names.

    Raises:
        CmrvlmError: A name is none of the mix's tasks.
    """
    if not names:
        return dict(tasks)
    for name in names:
        if name not in tasks:
            raise CmrvlmError(
                f"unknown task '{name}'",
                field="tasks",
                remedy=f"Tasks of this run: {', '.join(tasks)}.",
            )
    return {name: task for name, task in tasks.items() if name in names}


@dataclass
class Scored:
    """Answers under one condition with their scores.

    Attributes:
        asked: The answers.
        tree: Values with intervals by task and metric.
        replicates: Resampled values (B,) by `task.metric`.
        rows: Rows of `answers.parquet`.
    """

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
        """Load the run and its data, and leave out studies of patients it was trained on."""
        self.config = config
        self.out = Path(config["out"])
        bert_settings = config.get("bert_score") or {}
        self.bert = {name: value for name, value in bert_settings.items() if value is not None}
        # A missing model is to stop the evaluation before its first answer, not after the last.
        if self.bert:
            check_bert_model(**self.bert)
        self.device = own_device(device_of(config["device"]))
        self.run = load_run(Path(config["run"]))
        self.run.model.to(self.device)
        self.conditions = conditions(
            config["subsets"], config["probes"], list(self.run.model.encoders)
        )
        self.data = evaluation_data(self.run, config["data"], config["paths"]["cache"])
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
        self.patient_of = {study: patient_of[study] for study in self.studies}
        self.synthetic = bool(self.data.load_study(self.studies[0]).synthetic)

    def _leave_out_trained_on(self, patient_of: Mapping[str, str]) -> dict[str, int]:
        """Leave out studies of patients whom the run, or one that it began from, was trained on.

        Args:
            patient_of: Study to its patient.

        Returns:
            Number of studies and of patients that are left out.

        Raises:
            CmrvlmError: No study is left.
        """
        # Scores on the training part are wanted only by those who name it.
        if self.config["part"] == TRAIN:
            return {"studies": 0, "patients": 0}
        known = trained_on(read_lineage(self.run.folder, patient_of), self.studies, patient_of)
        unseen = [study for study in self.studies if study not in set(known)]
        if not unseen:
            raise CmrvlmError(
                f"the run was trained on the patients of all {len(known)} studies",
                field="data",
                remedy="Give data of other patients, or part=train to score what was trained on.",
            )
        self.studies = unseen
        known_patients = {patient_of[study] for study in known}
        return {"studies": len(known), "patients": len(known_patients)}

    def score(self, condition: Condition, full: Asked | None) -> Scored:
        """Ask and score under a condition; `full` are the answers with everything shown, if any."""
        loader = self.data.question_loader(
            own_share(self.studies), condition.shown, paraphrased=condition.probe == "paraphrase"
        )
        rank, _ = rank_and_count()
        panel = None
        # Several processes would write the same file.
        if full is None and rank == 0:
            panel = self.out / "panel.png"
        answers = self.questioner.ask(loader, condition, full, panel)
        asked = gathered(answers, self.studies)
        extra = None
        if self.bert:
            free_text = [name for name, task in self.tasks.items() if task.is_free_text]
            extra = {name: partial(bert_scores, **self.bert) for name in free_text}
        by_task = statistics(asked, self.tasks, full, extra)
        tree, replicates = as_tree(by_task, asked, self.bootstrap)
        rows = answer_rows(asked, self.tasks, by_task)
        return Scored(asked, tree, replicates, rows)

    def gate(self) -> Rates:
        """Return what the run turns away; empty where it is not asked for."""
        if not self.config["gate"]:
            return {}
        return turned_away(self.run, self.data.load_study, self.patient_of, self.bootstrap)

    def settings(self) -> dict[str, Any]:
        """Return everything that the numbers depend on, for `metrics.json`."""
        config = self.config
        cleaning = "none"
        if config["lowercase"]:
            cleaning = "lower case"
        gate = "off"
        if config["gate"]:
            gate = f"each kind of image without a heart from at most {MOST_FOREIGN} studies"
        study_names = "/".join(self.studies)
        probes = [condition.probe for condition in self.conditions if condition.probe]
        packages = ("cmrvlm", "torch", "transformers", "monai")
        return {
            "part": config["part"],
            "studies": len(self.studies),
            "patients": len(self.bootstrap.patients),
            "left_out_trained_on": self.trained_on,
            "synthetic": self.synthetic,
            "weights": weights_hash(self.run.folder),
            "data": self.data.content_hash(self.studies),
            "study_ids": hashlib.sha256(study_names.encode()).hexdigest()[:16],
            "preprocessing": self.run.preprocessing.spec(),
            "languages": list(self.data.mixture.languages),
            "context": list(self.data.mixture.context),
            "tasks": list(self.tasks),
            "decoding": f"{self.decode}; closed questions among the answers that they allow, "
            "reports in their outline",
            "masks": str(self.reading),
            "max_new_tokens": config["max_new_tokens"],
            "cases_per_task": config["cases_per_task"],
            "studies_at_once": config["studies_at_once"],
            "cleaning": cleaning,
            "text_scale": "0 to 1",
            "bleu_tokenizers": BLEU_TOKENIZERS,
            "rouge_and_meteor_tokenizer": "words, single characters for Chinese",
            "meteor": meteor_missing() or "WordNet of nltk",
            "bert_score": self.bert or "off",
            "intervals": f"2.5 to 97.5 %, {config['bootstrap']} resamples of patients, seed 0",
            "probes": {name: PROBES[name] for name in probes},
            "gate": gate,
            "device": self.device.type,
            "versions": {name: version(name) for name in packages},
        }


def evaluate(config: Config) -> dict[str, Any]:
    """Evaluate as `conf/evaluate.yaml` says, write the results, and return `metrics.json`.

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
        # Of several conditions that fail for a study the first is reported.
        for study, reason in scored.asked.failures.items():
            failures.setdefault(study, f"{condition.name}: {reason}")
    rows += [
        {"study": study, "subset": "full", "probe": "", "failure": reason}
        for study, reason in evaluation.broken.items()
    ]
    gate = evaluation.gate()
    content = {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "tasks": full.tree,
        "probes": probes,
        "subsets": subsets,
        "gate": gate,
        "failures": failures,
        "settings": evaluation.settings(),
    }
    rank, _ = rank_and_count()
    if rank > 0:
        return content
    write_json(evaluation.out / "metrics.json", content)
    write_answers(rows, evaluation.out / "answers.parquet")
    write_replicates(evaluation.out / "replicates.parquet", evaluation.bootstrap, full.replicates)
    figures.draw_all(evaluation.tasks, full.asked, subsets, evaluation.out)
    titled_tables = _titled_tables(evaluation, content)
    _print(evaluation, titled_tables, failures)
    text = "\n".join(tables.markdown(*table) for table in titled_tables)
    (evaluation.out / "metrics.md").write_text(text)
    return content


def _titled_tables(evaluation: Evaluation, content: Mapping[str, Any]) -> list[tables.Titled]:
    """Return the tables of an evaluation with their titles."""
    studies = "studies"
    if evaluation.synthetic:
        studies = "synthetic phantoms"
    title = f"{len(evaluation.studies)} {studies} of the {evaluation.config['part']} part"
    titled_tables = tables.titled_tables(
        content["tasks"], content["probes"], content["subsets"], evaluation.tasks, title
    )
    if content["gate"]:
        head, rows = tables.gate_rows(content["gate"])
        titled_tables.append((head, rows, "Images that are turned away"))
    return titled_tables


def _print(
    evaluation: Evaluation, titled_tables: Sequence[tables.Titled], failures: Mapping[str, str]
) -> None:
    """Print tables, what was left out, and the failures."""
    console = PlainConsole(width=150)
    for table in titled_tables:
        console.print(tables.rich_table(*table))
    left_out = evaluation.trained_on
    if left_out["studies"]:
        console.print(
            f"left out: {left_out['studies']} studies of {left_out['patients']} patients "
            "whom the run, or one that it began from, was trained on"
        )
    for study, reason in failures.items():
        console.print(one_line(f"failed: {study}: {reason}"), markup=False)
