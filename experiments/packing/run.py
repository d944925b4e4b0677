"""Time many instructions about a study in one row against one at a time, on synthetic phantoms.

    python -m experiments.packing.run [run=<run of stage 3>] [rounds=<number>]

Training: a step on one study with eight instructions behind one copy of its images, against eight
steps with one each; forward, backward and encoding included, with the tiny language model and with
SmolLM2-135M (LoRA, in English), at the default number of image tokens and at larger ones. Reading:
one question of each task about one study in one call, against a call for each, with a trained run;
a study of the default size, and one as large as scanners make them. Both ways in turn in every
round; the median round counts. Writes `metrics.json` and `table.md` here.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from hydra import compose, initialize_config_dir

from cmrvlm.config.build import build
from cmrvlm.config.command import resolved
from cmrvlm.inference.answering import answer_batch
from cmrvlm.instructions.batch import Batch
from cmrvlm.instructions.instruction import Instruction
from cmrvlm.runs.run_folder import load_run
from cmrvlm.runs.wiring import build_collator, build_data, build_model, build_tokenizer
from cmrvlm.stages.base import Stage
from data_modules.sources.phantom.source import PhantomSource
from experiments.commands import CONSOLE, given

HERE = Path(__file__).parent
CONF = HERE.parents[1] / "conf"
TOGETHER = 8
SMOLLM2 = ["llm=smollm2_135m", "adapter=lora", "mix.languages=[en]"]
# Every token of the encoders, in place of eight for each series.
ALL_TOKENS = ["projector=mlp"]
MANY_TOKENS = [
    *ALL_TOKENS,
    "encoders.sax.spatial_grid=[6,6,6]",
    "encoders.lax_4ch.spatial_grid=[1,12,12]",
    "encoders.lge.spatial_grid=[4,6,6]",
]
MODELS = {
    "tiny": [],
    "smollm2_135m": SMOLLM2,
    "smollm2_135m_all_tokens": [*SMOLLM2, *ALL_TOKENS],
    "smollm2_135m_many_tokens": [*SMOLLM2, *MANY_TOKENS],
}
SIZES = {
    "default": {},
    "clinical": {"size": 192, "slices": 10, "frames": 25, "spacing_mm": (1.4, 1.4)},
}


def configured(overrides: Sequence[str]) -> dict[str, Any]:
    """Return a plain configuration of stage 3 on phantoms, with overrides."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return resolved(
            compose(
                "train",
                overrides=[
                    "+experiment=stage3",
                    "data.source.count=32",
                    "out=none",
                    "run_dir=none",
                    *overrides,
                ],
            )
        )


def in_turn(ways: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """Time each way in turn, and return the median seconds; a first round warms up uncounted."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, work in ways.items():
            started = time.perf_counter()
            work()
            if number > 0:
                times[name].append(time.perf_counter() - started)
    return {name: median(taken) for name, taken in times.items()}


def training(overrides: Sequence[str], rounds: int) -> dict[str, float]:
    """Time a packed step, and as many single steps as it has instructions."""
    config = configured(overrides)
    data = build_data(config)
    data.prepare_data()
    tokenizer = build_tokenizer(config, data, None)
    torch.manual_seed(0)
    model = build_model(config, tokenizer)
    collator = build_collator(model, tokenizer)
    settings = {key: value for key, value in config["stage"].items() if key != "init_from"} | {
        "taught": None
    }
    stage: Stage = build(settings, "stage", model=model, optimizer=None, schedule=None)
    study = data.cache.load(data.split["train"][0])
    instructions = one_of_each_task(data.mixture.all(study))[:TOGETHER]
    together = collator([(study, instructions)])
    alone = [collator([(study, [instruction])]) for instruction in instructions]
    counts = {
        "image_tokens": float(together.rows.image_lengths.max() - 1),
        "other_tokens": float((together.rows.lengths - together.rows.image_lengths).float().mean()),
    }

    def step(batches: Sequence[Batch]) -> None:
        """Run forward and backward on each batch."""
        for batch in batches:
            with torch.autocast("cpu", torch.bfloat16):
                stage.total(stage.means(batch)).backward()
            stage.zero_grad()

    times = in_turn({"together": lambda: step([together]), "alone": lambda: step(alone)}, rounds)
    return times | counts


def one_of_each_task(instructions: Sequence[Instruction]) -> list[Instruction]:
    """Return the first instruction of each task, those about whole series first."""
    first: dict[str, Instruction] = {}
    for instruction in instructions:
        first.setdefault(instruction.task, instruction)

    def is_about_part(instruction: Instruction) -> bool:
        """Return whether a view shows less than its whole series."""
        return not all(view.whole for view in instruction.views)

    return sorted(first.values(), key=is_about_part)


def reading(run: Path, rounds: int, size: Mapping[str, Any]) -> dict[str, float]:
    """Time one call with a question of each task, and a call for each question.

    Args:
        run: Folder of a trained run.
        rounds: Rounds that are timed.
        size: Settings of the phantom that is asked about.
    """
    trained = load_run(run)
    source = PhantomSource(count=1, seed=1, **size)
    study = source.load(source.study_ids()[0])
    mixture = build(trained.config["mix"], "mix")
    instructions = one_of_each_task(mixture.all(study))
    together = trained.collator([(study, instructions)])
    alone = [trained.collator([(study, [instruction])]) for instruction in instructions]
    answers: dict[str, list[str]] = {}

    def ask(name: str, batches: Sequence[Batch]) -> None:
        """Answer each batch, and keep the texts under a name."""
        texts: list[str] = []
        for batch in batches:
            given_answers = answer_batch(trained.model, trained.collator, replace(batch), 200)
            texts += [answer.text for answer in given_answers]
        answers[name] = texts

    times = in_turn(
        {"together": lambda: ask("together", [together]), "alone": lambda: ask("alone", alone)},
        rounds,
    )
    assert answers["together"] == answers["alone"]
    return times | {"questions": float(len(instructions))}


def _count(times: Mapping[str, float], name: str) -> str:
    """Format a number of tokens; empty where none was counted."""
    if name not in times:
        return ""
    return f"{times[name]:.0f}"


def main() -> None:
    """Time both, and keep numbers and table."""
    settings = given({"run": "runs/demo/stage3", "rounds": "5"})
    rounds = int(settings["rounds"])
    content: dict[str, Any] = {
        "rounds": rounds,
        "cores": os.cpu_count(),
        "instructions": TOGETHER,
        "precision": "bf16",
    }
    trained = {name: training(overrides, rounds) for name, overrides in MODELS.items()}
    for name, times in trained.items():
        content[f"train_seconds_{name}"] = times
        content[f"train_instructions_per_second_ratio_{name}"] = times["alone"] / times["together"]
    smollm2_ratio = content["train_instructions_per_second_ratio_smollm2_135m"]
    content["train_instructions_per_second_ratio"] = smollm2_ratio
    read = {name: reading(Path(settings["run"]), rounds, size) for name, size in SIZES.items()}
    for name, times in read.items():
        content[f"read_study_seconds_{name}"] = times
        content[f"read_study_ratio_{name}"] = times["alone"] / times["together"]
    content["read_study_ratio"] = content["read_study_ratio_default"]
    (HERE / "metrics.json").write_text(json.dumps(content, indent=1))
    lines = [
        "| what | image tokens | others, each | together, s | one by one, s | ratio |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    rows = [
        (f"training step of {TOGETHER} instructions, {name}", times)
        for name, times in trained.items()
    ]
    rows += [
        (f"reading {times['questions']:.0f} tasks, study of {name} size", times)
        for name, times in read.items()
    ]
    for label, times in rows:
        image_tokens = _count(times, "image_tokens")
        other_tokens = _count(times, "other_tokens")
        ratio = times["alone"] / times["together"]
        lines.append(
            f"| {label} | {image_tokens} | {other_tokens} | {times['together']:.2f} "
            f"| {times['alone']:.2f} | {ratio:.1f} |"
        )
    (HERE / "table.md").write_text("\n".join(lines) + "\n")
    CONSOLE.print("\n".join(lines), markup=False)


if __name__ == "__main__":
    main()
