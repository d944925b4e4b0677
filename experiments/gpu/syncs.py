"""Count how often the processor waits for the GPU, in a training step and for a token."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from cmrvlm.inference.answering import answer_questions
from experiments.gpu.bench import Bench, Case, Row
from experiments.gpu.guard import SkippedError
from experiments.gpu.setups import Setup, configured, set_up, studies
from experiments.packing.run import one_of_each_task

_SHOWN = 12


def syncs(bench: Bench) -> Iterator[Case]:
    """Yield the cases."""
    chosen = [*studies(bench), "trainer.precision=bf16-mixed"]
    setup = set_up(configured(bench, chosen), bench.device)
    yield Case("training step", partial(_training_step, bench, setup))
    yield Case("all tasks about one study", partial(_reading, bench, setup, None))
    yield Case("a report about one study", partial(_reading, bench, setup, "report"))


def _training_step(bench: Bench, setup: Setup) -> Row:
    """Count the waits of forward, backward and optimizer."""
    stage = setup.stage
    batch = setup.batch().to(bench.device)
    trained = [p for p in setup.model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, 1e-4)

    def step() -> None:
        stage.train()
        optimizer.zero_grad()
        with bench.autocast():
            losses = stage.means(batch)
        stage.check_finite(losses, batch)
        stage.total(losses).backward()
        optimizer.step()

    return _counted(bench, step)


def _reading(bench: Bench, setup: Setup, task: str | None) -> Row:
    """Count the waits of answering, and how many there are for a step of decoding.

    Args:
        bench: Where is measured.
        setup: Model on the device.
        task: Task that is asked about; None asks all of them.
    """
    study = setup.data.load_study(setup.data.split["train"][0])
    instructions = one_of_each_task(setup.data.mixture.all(study))
    if task is not None:
        instructions = [one for one in instructions if one.task == task]
    setup.model.eval()
    longest = 8 if bench.small else 64
    steps: list[int] = []

    def answer() -> None:
        batch = setup.collator.questions([(study, instructions)])
        answers = answer_questions(setup.model, setup.collator, batch, longest)
        ids = [setup.collator.text_ids(one.text) for one in answers]
        steps.append(max(len(row) for row in ids))

    row = _counted(bench, answer)
    return row | {"longest_answer": steps[-1], "waits_per_token": row["waits"] / max(1, steps[-1])}


def _counted(bench: Bench, work: Callable[[], Any]) -> Row:
    """Run some work twice and count the waits of the second time, by the line that waits."""
    if not bench.on_gpu:
        work()
        raise SkippedError("only a GPU is waited for")
    work()
    bench.wait()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            work()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    lines = Counter(
        f"{'/'.join(Path(one.filename).parts[-2:])}:{one.lineno}"
        for one in caught
        if "synchroniz" in str(one.message)
    )
    return {"waits": sum(lines.values()), "lines": dict(lines.most_common(_SHOWN))}
