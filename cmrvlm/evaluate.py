"""Score a run on the test part of its own data: `python -m cmrvlm.evaluate run=<folder>`."""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import track
from rich.table import Table

from cmrvlm.entry import CONFIG_PATH, explained
from cmrvlm.errors import CmrvlmError
from cmrvlm.figures import mask_panel
from cmrvlm.inference import answer_batch
from cmrvlm.stages.run_folder import TrainedRun, load_run, weights_hash
from cmrvlm.stages.wiring import Config, build_data, plain
from cmrvlm.tasks.base import Answer, Score

log = logging.getLogger(__name__)
Scores = dict[str, dict[str, Score]]


def evaluation_data(run: TrainedRun, changes: Config) -> Any:
    """The run's data module on the run's own split, with `changes` to its settings.

    A change of the source, its root or its path means other data: the split is then made anew.
    """
    config = json.loads(json.dumps(run.config))
    config["data"] = _merge(config["data"], changes)
    other_source = bool({"source", "root", "path", "_target_", "split_file", "shares"} & set(changes))
    if "root" in changes and "root" in config["data"].get("source", {}):
        config["data"]["source"]["root"] = changes["root"]
    split = run.folder / "split.json"
    if not other_source and split.is_file():
        config["data"]["split_file"] = str(split)
    data = build_data(config)
    data.prepare_data()
    data.collator = run.collator
    return data


def _merge(base: Config, changes: Config) -> Config:
    merged = OmegaConf.to_container(OmegaConf.merge(base, changes))
    assert isinstance(merged, dict)
    return {str(key): value for key, value in merged.items()}


def ask_all(run: TrainedRun, data: Any, part: str, *, blind: bool, max_new_tokens: int, panel: Path | None = None
            ) -> list[Answer]:  # fmt: skip
    """Every answer about every study of a part of the split."""
    answers: list[Answer] = []
    loader = data.evaluation_loader(part, blind=blind)
    for batch in track(loader, description="Asking blind" if blind else "Asking", transient=True):
        found = answer_batch(run.model, run.collator, batch, max_new_tokens)
        if panel and not answers:
            mask_panel(batch, found, panel)
        answers += found
    return answers


def score_all(answers: Sequence[Answer], data: Any) -> Scores:
    """Scores of each task of the mix over its answers."""
    by_task: dict[str, list[Answer]] = defaultdict(list)
    for answer in answers:
        by_task[answer.instruction.task].append(answer)
    return {name: task.score(by_task[name]) for name, task in data.mixture.tasks.items()}


def as_json(scores: Scores) -> dict[str, dict[str, dict[str, float | int | None]]]:
    """Task to metric to value, number of answers and number of undefined ones."""
    return {task: {name: vars(score) for name, score in own.items()} for task, own in scores.items()}


def score_rows(scores: Scores, blind: Scores | None) -> list[tuple[str, str, str, str, str]]:
    """Task, metric, value, blind value, number; per-class values are left to the JSON."""

    def shown(score: Score | None) -> str:
        return "" if score is None else "undefined" if score.value is None else f"{score.value:.3f}"

    return [
        (task, name, shown(score), shown(blind[task].get(name)) if blind else "", str(score.n))
        for task, own in scores.items()
        for name, score in own.items()
        if not (name.startswith("auroc_"))
    ]


def evaluate(config: Config) -> dict[str, Any]:
    """Evaluate as `conf/evaluate.yaml` says, write table, JSON and Markdown, and return the JSON's content.

    Args:
        config: Plain configuration.

    Raises:
        CmrvlmError: The part of the split is empty.
    """
    out = Path(config["out"])
    run = load_run(Path(config["run"]))
    data = evaluation_data(run, config["data"])
    part = config["part"]
    if not data.split.get(part):
        raise CmrvlmError(
            f"part '{part}' holds no study", field="part", remedy="Set data.shares, or choose another part."
        )
    settings = {"max_new_tokens": config["max_new_tokens"]}
    answers = ask_all(run, data, part, blind=False, panel=out / "panel.png", **settings)
    scores = score_all(answers, data)
    blind = score_all(ask_all(run, data, part, blind=True, **settings), data) if config["blind"] else None
    synthetic = any(data.cache.load(study).synthetic for study in data.split[part][:1])
    content = {
        "tasks": as_json(scores),
        "probes": {} if blind is None else {"blind": as_json(blind)},
        "failures": data.failures,
        "settings": {
            "part": part,
            "studies": len(data.split[part]),
            "synthetic": synthetic,
            "decoding": "greedy",
            "weights": weights_hash(run.folder),
            "data": data.cache.folder.name,
            **settings,
        },
    }
    rows = score_rows(scores, blind)
    kind = "synthetic phantoms" if synthetic else "studies"
    _write(out, content, rows, f"{len(data.split[part])} {kind} of the {part} part")
    return content


def _write(out: Path, content: dict[str, Any], rows: Sequence[tuple[str, ...]], title: str) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / "metrics.json").write_text(json.dumps(content, indent=1, ensure_ascii=False))
    head = ("task", "metric", "value", "images removed", "n")
    table = Table(*head, title=title)
    for row in rows:
        table.add_row(*row)
    Console(width=110).print(table)
    lines = [f"Scores on {title}.", "", f"| {' | '.join(head)} |", "|---|---|---:|---:|---:|"]
    (out / "metrics.md").write_text("\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n")


@hydra.main(version_base="1.3", config_path=CONFIG_PATH, config_name="evaluate")
@explained
def main(config: DictConfig) -> None:
    """Entry point."""
    settings = plain(config)
    evaluate(settings)
    log.info("scores: %s", Path(settings["out"]) / "metrics.json")


if __name__ == "__main__":
    main()
