"""Time the writing of answers: tokens a second, and everything that is asked about one study."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import partial

import torch

from cmrvlm.inference.answering import answer_questions
from cmrvlm.models.precision import autocast_of
from experiments.gpu.bench import Bench, Case, Row
from experiments.gpu.setups import Setup, configured, language_model, set_up, studies
from experiments.packing.run import one_of_each_task

_BATCHES = (1, 8, 32)
_NEW_TOKENS = 64
# No token has this id: every answer is as long as it may be.
_NEVER = -1
_SMALL = {"tiny": "tiny", "qwen3_0_6b": "qwen3_small", "qwen3_4b": "qwen3_small"}


def generation(bench: Bench) -> Iterator[Case]:
    """Yield a case for each language model and batch, then the reading of one study."""
    names = ["tiny", "qwen3_0_6b", "qwen3_4b"]
    if bench.small:
        names = names[:2]
    for name in names:
        setup = _untrained(bench, name)
        for batch in (1, 2) if bench.small else _BATCHES:
            yield Case(f"{name}, batch {batch}", partial(generate, bench, setup, batch), 10)
        if name != "qwen3_4b":
            yield Case(f"{name}, all tasks about one study", partial(_read, bench, setup), 20)
        del setup


def _untrained(bench: Bench, name: str) -> Setup:
    """Return a model with random weights on the device, that answers in mixed precision."""
    chosen = [*studies(bench), "trainer.precision=bf16-mixed"]
    if name != "tiny":
        chosen += [*language_model(bench, _SMALL[name] if bench.small else name), "adapter=none"]
    setup = set_up(configured(bench, chosen), bench.device)
    setup.model.eval()
    return setup


def generate(bench: Bench, setup: Setup, batch: int, new_tokens: int = _NEW_TOKENS) -> Row:
    """Time free answers to one question about as many studies.

    Args:
        bench: Where and how long is measured.
        setup: Model on the device.
        batch: Number of studies.
        new_tokens: Tokens of each answer.
    """
    model = setup.model
    count = 4 if bench.small else new_tokens
    study = setup.data.load_study(setup.data.split["train"][0])
    instruction = next(one for one in setup.data.mixture.all(study) if one.task == "report")
    questions = setup.collator.questions([(study, [instruction])]).to(bench.device)
    prompt = setup.collator.prompt_ids(instruction)

    @torch.no_grad()
    def answer(new_tokens: int) -> list[list[int]]:
        with autocast_of(model.precision, model.device):
            features = model.encode(questions.media)
            tokens = model.image_tokens(features, questions.questions, questions.owners)
            # As many studies: each row has its own copy of the images.
            groups = list(range(batch))
            return model.generate(tokens * batch, [prompt] * batch, groups, _NEVER, new_tokens)

    written = answer(count)
    assert all(len(row) == count for row in written)
    with bench.peak_memory() as memory:
        first = bench.seconds(lambda: answer(1))
        all_tokens = bench.seconds(lambda: answer(count))
    step = (all_tokens - first) / (count - 1)
    return {
        "prompt_tokens": len(prompt),
        "new_tokens": count,
        "first_token_ms": 1000 * first,
        "ms_per_step": 1000 * step,
        "tokens_per_s": batch / step,
        **memory,
    }


def _read(bench: Bench, setup: Setup) -> Row:
    """Time one question of each task about one study, twice: the first time includes the warm-up."""
    study = setup.data.load_study(setup.data.split["train"][0])
    instructions = one_of_each_task(setup.data.mixture.all(study))
    longest = 8 if bench.small else 200
    times: list[float] = []
    texts: Sequence[str] = ()
    with bench.peak_memory() as memory:
        for _ in range(2):
            started = time.perf_counter()
            batch = setup.collator.questions([(study, instructions)])
            answers = answer_questions(setup.model, setup.collator, batch, longest)
            bench.wait()
            times.append(time.perf_counter() - started)
            texts = [answer.text for answer in answers]
    written = sum(len(setup.collator.text_ids(text)) for text in texts)
    masks = sum(answer.mask is not None for answer in answers)
    return {
        "tasks": len(instructions),
        "tokens": written,
        "masks": masks,
        "first_s": times[0],
        "second_s": times[1],
        **memory,
    }
