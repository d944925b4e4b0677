"""Score a run on the test part of its own data.

Tasks are asked with everything shown, under probes and with subsets of the sequences; written are
tables, answers and figures.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from cmrvlm.config.command import Config
from cmrvlm.config.console import print_table
from cmrvlm.config.terminal import PlainConsole, one_line
from cmrvlm.evaluation import figures, tables
from cmrvlm.evaluation.answer_table import AnswerTable
from cmrvlm.evaluation.claim import claimed
from cmrvlm.evaluation.conditions import Condition
from cmrvlm.evaluation.evaluation import Evaluation
from cmrvlm.evaluation.kept_answers import KeptAnswers
from cmrvlm.evaluation.processes import join_processes, wait_for_others
from cmrvlm.evaluation.results import Tree, write_replicates
from cmrvlm.evaluation.scoring import Scored, Scorer
from cmrvlm.evaluation.turned_away import NO_FAMILIARITY, TurnedAway
from cmrvlm.study.atomic_files import write_json


def evaluate(config: Config) -> dict[str, Any]:
    """Evaluate as `conf/evaluate.yaml` says, write the results, and return `metrics.json`.

    Of several processes the first one scores and writes; the others return nothing.

    Args:
        config: Plain configuration.

    Raises:
        CmrvlmError: A setting is unknown, there is nothing to evaluate on, or another evaluation
            writes into the same folder.
    """
    join_processes()
    evaluation = Evaluation(config)
    is_first = evaluation.rank == 0
    settings = evaluation.settings_of_answers()
    resume = config["resume"]
    with claimed(evaluation.out, settings, resume=resume, first_process=is_first) as folder:
        wait_for_others()
        kept, turned_away = evaluation.ask(folder)
        if not is_first:
            return {}
        return _scored(evaluation, kept, turned_away)


def _scored(
    evaluation: Evaluation, kept: Sequence[KeptAnswers], turned_away: TurnedAway
) -> dict[str, Any]:
    """Score all answers, write the results, and return `metrics.json`.

    Args:
        evaluation: The evaluation.
        kept: Answers under each condition, those with everything shown first.
        turned_away: What the run turns away.
    """
    probes: dict[str, Tree] = {}
    subsets: dict[str, Tree] = {}
    failures = dict(evaluation.broken)
    full = Scored()
    scorer = Scorer(
        evaluation.tasks,
        evaluation.studies,
        evaluation.bootstrap,
        kept[0],
        evaluation.more_scores(),
    )
    with AnswerTable.at(evaluation.out / "answers.parquet") as table:
        for answers in kept:
            condition = answers.condition
            scored = scorer.score(answers, table)
            prefix = f"{condition.name}: "
            if condition == Condition():
                full = scored
                prefix = ""
            elif condition.probe:
                probes[condition.name] = scored.tree
            else:
                subsets[condition.name] = scored.tree
            # Of several conditions that fail for a study the first is reported.
            for study, reason in answers.failures().items():
                failures.setdefault(study, f"{prefix}{reason}")
        table.add_failures(Condition(), evaluation.broken)
    rates = {}
    if evaluation.config["gate"]:
        rates = turned_away.rates(evaluation.patient_of, evaluation.bootstrap)
    content = {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "tasks": full.tree,
        "probes": probes,
        "subsets": subsets,
        "gate": rates,
        "failures": failures,
        "settings": evaluation.settings(),
    }
    write_json(evaluation.out / "metrics.json", content)
    write_replicates(evaluation.out / "replicates.parquet", evaluation.bootstrap, full.replicates)
    undrawn = figures.draw_all(full.stated_and_true, full.calibrations, subsets, evaluation.out)
    titled_tables = _titled_tables(evaluation, content)
    _print(evaluation, titled_tables, failures, undrawn)
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
        title = "Images that are turned away"
        if evaluation.run.familiarity is None:
            title = f"{title}: not counted, {NO_FAMILIARITY}"
            rows = []
        titled_tables.append((head, rows, title))
    return titled_tables


def _print(
    evaluation: Evaluation,
    titled_tables: Sequence[tables.Titled],
    failures: Mapping[str, str],
    undrawn: Sequence[str],
) -> None:
    """Print tables, what was left out, the figures that are not there, and the failures."""
    console = PlainConsole(width=150)
    for table in titled_tables:
        print_table(tables.rich_table(*table), console)
    left_out = evaluation.trained_on
    if left_out["studies"]:
        console.print(
            f"left out: {left_out['studies']} studies of {left_out['patients']} patients "
            "whom the run, or one that it began from, was trained on"
        )
    for reason in undrawn:
        console.print(reason)
    for study, reason in failures.items():
        console.print(one_line(f"failed: {study}: {reason}"), markup=False)
