"""Ask a run about the test part of its own data, or about other data."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cmrvlm.config.build import build
from cmrvlm.config.command import Config
from cmrvlm.errors import CmrvlmError
from cmrvlm.evaluation.asking import Questioner
from cmrvlm.evaluation.conditions import PROBES, Condition, conditions, partners
from cmrvlm.evaluation.data import evaluation_data
from cmrvlm.evaluation.kept_answers import Identity, KeptAnswers
from cmrvlm.evaluation.processes import (
    own_device,
    own_share,
    rank_and_count,
    wait_for_others,
)
from cmrvlm.evaluation.results import Bootstrap
from cmrvlm.evaluation.scoring import MoreScores
from cmrvlm.evaluation.turned_away import MOST_FOREIGN, NO_FAMILIARITY, TurnedAway
from cmrvlm.inference.answering import device_of
from cmrvlm.inference.mask_reading import MaskReading
from cmrvlm.language_model.decoding import Decode
from cmrvlm.metrics.bert_score import bert_scores, check_bert_model
from cmrvlm.metrics.text import BLEU_TOKENIZERS, meteor_missing
from cmrvlm.runs.code_key import code_digest, modules_of
from cmrvlm.runs.fingerprints import config_hash
from cmrvlm.runs.lineage import TRAIN, read_lineage, trained_on
from cmrvlm.runs.run_folder import load_run, weights_hash
from cmrvlm.tasks.base import Task

log = logging.getLogger(__name__)


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
        self.rank, self.processes = rank_and_count()
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

    def ask(self, folder: Path) -> tuple[list[KeptAnswers], TurnedAway]:
        """Ask what was not asked yet, and look at what the run turns away.

        Args:
            folder: Folder of the answers.

        Returns:
            Answers under each condition, and what the run turns away.
        """
        kept = [KeptAnswers(folder, condition, self.rank) for condition in self.conditions]
        only = None
        for answers in kept:
            self._ask_under(answers, only)
            # Under every condition the same questions count, for differences in pairs.
            if only is None and self.config["cases_per_task"]:
                wait_for_others()
                only = answers.identities()
        turned_away = TurnedAway(folder / "gate", self.studies, self.rank)
        if self.config["gate"]:
            turned_away.count(self.run, self.data.load_study)
        wait_for_others()
        return kept, turned_away

    def _ask_under(self, kept: KeptAnswers, only: Collection[Identity] | None) -> None:
        """Ask about the studies that were not asked about yet under a condition."""
        condition = kept.condition
        known = kept.studies()
        share = own_share(self.studies)
        studies = [study for study in share if study not in known]
        if len(studies) < len(share):
            done = len(share) - len(studies)
            log.info("%s: %d of %d studies were asked before", condition.name, done, len(share))
        if not studies:
            return
        panel = None
        # Several processes would write the same file, and another one is that of other studies.
        if condition == Condition() and self.rank == 0 and len(studies) == len(share):
            panel = self.out / "panel.png"
        loader = self.data.question_loader(
            studies, condition.shown, paraphrased=condition.probe == "paraphrase"
        )
        self.questioner.ask(loader, kept, only, panel)

    def more_scores(self) -> dict[str, MoreScores]:
        """Return task to scores of its answers by a language model, where one is given."""
        if not self.bert:
            return {}
        free_text = [name for name, task in self.tasks.items() if task.is_free_text]
        return {name: partial(bert_scores, **self.bert) for name in free_text}

    def _code(self) -> str:
        """Return a hash of the code that asks, answers and measures."""
        parts = [*self.run.model.modules(), *self.tasks.values(), self.decode, self.reading]
        return code_digest([__name__, *modules_of(*parts)])

    def settings_of_answers(self) -> dict[str, Any]:
        """Return everything that answers depend on, for `metrics.json` and for who goes on."""
        config = self.config
        cleaning = "none"
        if config["lowercase"]:
            cleaning = "lower case"
        study_names = "/".join(self.studies)
        packages = ("cmrvlm", "torch", "transformers", "monai")
        return {
            "part": config["part"],
            "studies": len(self.studies),
            "patients": len(self.bootstrap.patients),
            "left_out_trained_on": self.trained_on,
            "synthetic": self.synthetic,
            "weights": weights_hash(self.run.folder),
            "configuration": config_hash(self.run.config)[:16],
            "code": self._code()[:16],
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
            "processes": self.processes,
            "cleaning": cleaning,
            "device": self.device.type,
            "versions": {name: version(name) for name in packages},
        }

    def settings(self) -> dict[str, Any]:
        """Return everything that the numbers depend on, for `metrics.json`."""
        config = self.config
        gate = "off"
        if config["gate"]:
            gate = f"each kind of image without a heart from at most {MOST_FOREIGN} studies"
        if config["gate"] and self.run.familiarity is None:
            gate = f"not counted, {NO_FAMILIARITY}"
        probes = [condition.probe for condition in self.conditions if condition.probe]
        return self.settings_of_answers() | {
            "text_scale": "0 to 1",
            "bleu_tokenizers": BLEU_TOKENIZERS,
            "rouge_and_meteor_tokenizer": "words, single characters for Chinese",
            "meteor": meteor_missing() or "WordNet of nltk",
            "bert_score": self.bert or "off",
            "intervals": f"2.5 to 97.5 %, {config['bootstrap']} resamples of patients, seed 0",
            "probes": {name: PROBES[name] for name in probes},
            "gate": gate,
        }
