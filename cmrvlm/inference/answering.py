"""Answers of a trained model to a batch of instructions: text, masks, boxes and read-outs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cmrvlm.errors import CmrvlmError
from cmrvlm.inference.mask_reading import MaskReading
from cmrvlm.instructions.batch import Batch
from cmrvlm.instructions.collate import Collator
from cmrvlm.instructions.rows import rows_by_series, rows_of
from cmrvlm.instructions.targets import measurements_of, risk_of, without_volumes
from cmrvlm.language_model.answer_rules import OneOf, Outline, Rule
from cmrvlm.language_model.decoding import Decode
from cmrvlm.models.features import Features
from cmrvlm.models.precision import autocast_of
from cmrvlm.models.vision_language_model import CMRVLM
from cmrvlm.reports.numbers import fill_quotes
from cmrvlm.reports.writer import CUT, all_headings
from cmrvlm.study.measurements import FEWEST_SLICES, MACE_RISK
from cmrvlm.tasks.base import Answer, Instruction
from cmrvlm.tasks.segmentation import said_absent

_PROBABILITIES = ("disease", "findings", "hazard")


def device_of(name: str) -> torch.device:
    """The device that `auto`, `cpu` or `cuda` stands for; `auto` is a GPU where there is one.

    Raises:
        CmrvlmError: The name is unknown, or there is no GPU.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise CmrvlmError(
            f"unknown device '{name}'", field="device", remedy="Use auto, cpu or cuda."
        )
    found = torch.cuda.is_available()
    if name == "cuda" and not found:
        raise CmrvlmError(
            "there is no GPU here", field="device", remedy="Use device=auto or device=cpu."
        )
    return torch.device("cuda" if found and name != "cpu" else "cpu")


@torch.no_grad()
def answer_batch(
    model: CMRVLM,
    collator: Collator,
    batch: Batch,
    max_new_tokens: int,
    decode: Decode | None = None,
    reading: MaskReading | None = None,
) -> list[Answer]:
    """Ask a model every instruction of a batch, in the precision that it was trained in; images are encoded once.

    Args:
        model: In evaluation mode; the batch is moved to where it is.
        collator: The one that made the batch.
        batch: Questions; a batch without media is answered from the prompts alone.
        max_new_tokens: Longest answer; one of those that a closed question allows is never cut.
        decode: How; None takes the likeliest token each time.
        reading: How masks are read; None takes them as they are.

    Returns:
        One answer for each instruction, in their order.
    """
    device = next(model.parameters()).device
    with autocast_of(model.precision, device):
        return _answers(
            model, collator, batch.to(device), max_new_tokens, decode, reading or MaskReading()
        )


def _answers(
    model: CMRVLM,
    collator: Collator,
    batch: Batch,
    max_new_tokens: int,
    decode: Decode | None,
    reading: MaskReading,
) -> list[Answer]:
    """Answer as `answer_batch` says, with the batch where the model is."""
    owners = rows_of(batch)
    features = model.encode(batch.media)
    tokens = model.image_tokens(features, batch.instructions, owners)
    blind = not batch.media
    prompts = [collator.prompt_ids(one, blind) for one in batch.instructions]
    end = int(collator.tokenizer.eos_token_id)
    rules = [_rule(collator, one, end) for one in batch.instructions]
    groups = [
        (owner, one.case.views) for owner, one in zip(owners, batch.instructions, strict=True)
    ]
    new = model.generate(tokens, prompts, groups, end, max_new_tokens, rules, decode)
    texts = [
        collator.tokenizer.decode([t for t in ids if t != collator.image_id]).strip() for ids in new
    ]
    answers = [
        Answer(one, text, truncated=not one.allowed and len(ids) >= max_new_tokens)
        for one, text, ids in zip(batch.instructions, texts, new, strict=True)
    ]
    _add_masks(model, collator, batch, features, tokens, answers, reading)
    _add_read_outs(model, features, answers, owners)
    for answer in answers:
        answer.text = fill_quotes(
            answer.text, quoted_values(answer.read_outs), answer.instruction.language
        )
    return answers


def _rule(collator: Collator, instruction: Instruction, end: int) -> Rule | None:
    """What an answer may say: one of those that a closed question allows, or its headings in their order."""
    tokenizer = collator.tokenizer

    def encode(text: str) -> list[int]:
        return [int(one) for one in tokenizer.encode(text, add_special_tokens=False)]

    if instruction.allowed:
        return OneOf([[*encode(one), end] for one in instruction.allowed])
    if not instruction.outline:
        return None
    return Outline(instruction.outline, all_headings(), encode, tokenizer.decode, end, CUT)


def quoted_values(read_outs: Mapping[str, NDArray[np.float32]]) -> dict[str, float]:
    """Numbers that texts quote, from the read-outs of an answer."""
    values = measurements_of(read_outs["measurements"]) if "measurements" in read_outs else {}
    if "hazard" in read_outs:
        values[MACE_RISK] = 100 * risk_of(read_outs["hazard"])
    return values


def _add_masks(
    model: CMRVLM,
    collator: Collator,
    batch: Batch,
    features: Features,
    tokens: list[Tensor],
    answers: list[Answer],
    reading: MaskReading,
) -> None:
    asked = [row for row, one in enumerate(batch.instructions) if one.case.mask is not None]
    if not asked:
        return
    instructions: list[Instruction] = [batch.instructions[row] for row in asked]
    owners = [int(batch.owners[row]) for row in asked]
    rows = collator.rows(
        instructions, owners, blind=not batch.media, answers=[answers[row].text for row in asked]
    )
    rows = rows.to(batch.owners.device)
    hidden = model.read(rows, [tokens[row] for row in asked])
    logits = reading.logits(model, batch.media, features, hidden, rows, instructions, owners)
    for position, row in enumerate(asked):
        answer, truth, target = answers[row], batch.masks[row], instructions[position].case.mask
        assert target is not None
        answer.truth_mask = None if truth is None else truth.cpu().numpy()
        answer.spacing_mm = batch.spacings_mm[row]
        absent = (
            None
            if target.as_box
            else said_absent(target.structure, instructions[position].language)
        )
        if position in logits:
            answer.mask = reading.mask(logits[position], instructions[position])
        elif answer.text == absent and (owners[position], target.sequence) in features.place:
            stack, _ = features.place[owners[position], target.sequence]
            _, _, z, _, h, w = features.stacks[target.sequence][stack].pyramid[0].shape
            answer.mask = np.zeros((z, len(target.frames), h, w), dtype=bool)
        if absent and answer.mask is not None and not answer.mask.any():
            answer.text = absent  # what is nowhere is not there, whatever the words said


def _add_read_outs(
    model: CMRVLM, features: Features, answers: list[Answer], owners: list[int]
) -> None:
    """Read-outs of each distinct set of whole series once, given to all answers that show it."""
    sets = rows_by_series(features.place, [answer.instruction for answer in answers], owners)
    outputs = model.read_outs(features, list(sets))
    for index, ((owner, _), rows) in enumerate(sets.items()):
        values = {}
        for name, logits in outputs.items():
            one = logits[index].float()
            values[name] = (torch.sigmoid(one) if name in _PROBABILITIES else one).cpu().numpy()
        if "measurements" in values and _slices_of_sax(features, owner) < FEWEST_SLICES:
            values["measurements"] = without_volumes(values["measurements"])
        for row in rows:
            answers[row].read_outs = values


def _slices_of_sax(features: Features, owner: int) -> int:
    """Slices of a study's short-axis stack, 0 without one."""
    if (owner, "sax") not in features.place:
        return 0
    stack, _ = features.place[owner, "sax"]
    return int(features.stacks["sax"][stack].grid.shape[2])
