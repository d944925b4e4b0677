"""Answers of a trained model to a batch of instructions: text, masks and probabilities."""

from __future__ import annotations

import torch
from torch import Tensor

from cmrvlm.batch import Batch
from cmrvlm.models.cmrvlm import CMRVLM, Features, rows_of
from cmrvlm.tasks.base import Answer, Instruction
from cmrvlm.text.collate import Collator


@torch.no_grad()
def answer_batch(model: CMRVLM, collator: Collator, batch: Batch, max_new_tokens: int) -> list[Answer]:
    """Ask a model every instruction of a batch; images are encoded once.

    Args:
        model: In evaluation mode.
        collator: The one that made the batch.
        batch: Questions; a batch without media is answered blind.
        max_new_tokens: Longest answer.

    Returns:
        One answer for each instruction, in their order.
    """
    owners = rows_of(batch)
    features = model.encode(batch.media)
    tokens = model.image_tokens(features, batch.instructions, owners)
    blind = not batch.media
    prompts = [collator.prompt_ids(one, blind) for one in batch.instructions]
    end = int(collator.tokenizer.eos_token_id)
    new = model.generate(tokens, prompts, end, max_new_tokens)
    texts = [collator.tokenizer.decode([t for t in ids if t != collator.image_id]).strip() for ids in new]
    answers = [Answer(one, text) for one, text in zip(batch.instructions, texts, strict=True)]
    _add_masks(model, collator, batch, features, tokens, answers, owners)
    _add_probabilities(model, features, answers, owners)
    return answers


def _add_masks(
    model: CMRVLM, collator: Collator, batch: Batch, features: Features, tokens: list[Tensor], answers: list[Answer],
    owners: list[int],
) -> None:  # fmt: skip
    asked = [row for row, one in enumerate(batch.instructions) if one.case.mask is not None]
    if not asked:
        return
    instructions: list[Instruction] = [batch.instructions[row] for row in asked]
    device = batch.owners.device
    rows = collator.rows(instructions, blind=not batch.media, answers=[answers[row].text for row in asked])
    rows = rows.to(device)
    hidden = model.read(rows, [tokens[row] for row in asked])
    logits = model.mask_logits(features, hidden, rows, instructions, [owners[row] for row in asked])
    for position, row in enumerate(asked):
        truth = batch.masks[row]
        answers[row].truth_mask = None if truth is None else truth.cpu().numpy()
        answers[row].spacing_mm = batch.spacings_mm[row]
        if position in logits:
            answers[row].mask = (logits[position] > 0).cpu().numpy()


def _add_probabilities(model: CMRVLM, features: Features, answers: list[Answer], owners: list[int]) -> None:
    instructions = [answer.instruction for answer in answers]
    rows = model.diseases_askable(features, instructions)
    if not rows:
        return
    logits = model.disease_logits(features, [instructions[row] for row in rows], [owners[row] for row in rows])
    for row, values in zip(rows, torch.sigmoid(logits.float()).cpu().numpy(), strict=True):
        answers[row].probabilities = values
