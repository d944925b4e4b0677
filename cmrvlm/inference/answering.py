"""Answer a batch of questions with a trained model: text, masks, boxes and read-outs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cmrvlm.errors import CmrvlmError
from cmrvlm.inference.mask_reading import MaskReading
from cmrvlm.instructions.answer import Answer, AnswerWithTruth
from cmrvlm.instructions.batch import Batch, QuestionBatch
from cmrvlm.instructions.collate import Collator
from cmrvlm.instructions.question import Question
from cmrvlm.instructions.read_outs import READ_OUTS, Vector, quoted_values, without_volumes
from cmrvlm.instructions.rows import ShownSet, rows_by_shown_set
from cmrvlm.language_model.answer_rules import OneOf, Outline, Rule
from cmrvlm.language_model.decoding import Decode
from cmrvlm.models.features import Features, ReadRows
from cmrvlm.models.precision import autocast_of
from cmrvlm.models.vision_language_model import VisionLanguageModel
from cmrvlm.reports.numbers import fill_quotes
from cmrvlm.reports.writer import CUT, all_headings


def device_of(name: str) -> torch.device:
    """Return the device that `auto`, `cpu` or `cuda` stands for; `auto` is a GPU where there is one.

    Raises:
        CmrvlmError: The name is unknown, or there is no GPU.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise CmrvlmError(
            f"unknown device '{name}'", field="device", remedy="Use auto, cpu or cuda."
        )
    has_gpu = torch.cuda.is_available()
    if name == "cuda" and not has_gpu:
        raise CmrvlmError(
            "there is no GPU here", field="device", remedy="Use device=auto or device=cpu."
        )
    return torch.device("cuda" if has_gpu and name != "cpu" else "cpu")


def answer_batch(
    model: VisionLanguageModel,
    collator: Collator,
    batch: Batch,
    max_new_tokens: int,
    decode: Decode | None = None,
    reading: MaskReading | None = None,
    *,
    lowercase: bool = False,
) -> list[AnswerWithTruth]:
    """Answer the instructions of a batch and return each answer beside its truth.

    Args:
        model: See `answer_questions`.
        collator: See `answer_questions`.
        batch: Studies with instructions.
        max_new_tokens: See `answer_questions`.
        decode: See `answer_questions`.
        reading: See `answer_questions`.
        lowercase: Overlap scores compare texts in lower case.
    """
    answers = answer_questions(model, collator, batch.questions(), max_new_tokens, decode, reading)
    beside_truth = []
    for answer, instruction, mask in zip(answers, batch.instructions, batch.masks, strict=True):
        truth_mask = None if mask is None else mask.cpu().numpy()
        beside_truth.append(
            AnswerWithTruth.of(answer, instruction, truth_mask, lowercase=lowercase)
        )
    return beside_truth


@torch.no_grad()
def answer_questions(
    model: VisionLanguageModel,
    collator: Collator,
    batch: QuestionBatch,
    max_new_tokens: int,
    decode: Decode | None = None,
    reading: MaskReading | None = None,
    features: Features | None = None,
) -> list[Answer]:
    """Answer every question of a batch, in the precision of the training; images are encoded once.

    Args:
        model: In evaluation mode; the batch is moved to its device.
        collator: The one that made the batch.
        batch: Questions; a batch without media is answered from the prompts alone.
        max_new_tokens: Longest answer; one of those that a closed question allows is never cut.
        decode: Way of decoding; None takes the likeliest token each time.
        reading: Way of reading masks; None takes them as they are.
        features: The batch's studies where they are encoded already, None to encode them.

    Returns:
        One answer for each question, in their order.
    """
    if not batch.questions:
        return []
    reading = reading or MaskReading()
    with autocast_of(model.precision, model.device):
        batch = batch.to(model.device)
        if features is None:
            features = model.encode(batch.media)
        tokens = model.image_tokens(features, batch.questions, batch.owners)
        answers = _answers_in_words(model, collator, batch, tokens, max_new_tokens, decode)
        answers = _with_masks(model, collator, batch, features, tokens, answers, reading)
        return _with_read_outs(model, features, answers, batch.owners)


def _answers_in_words(
    model: VisionLanguageModel,
    collator: Collator,
    batch: QuestionBatch,
    tokens: list[Tensor],
    max_new_tokens: int,
    decode: Decode | None,
) -> list[Answer]:
    """Generate the text of each answer."""
    blind = not batch.media
    prompts = [collator.prompt_ids(question, blind=blind) for question in batch.questions]
    rules = [_rule(collator, question) for question in batch.questions]
    groups = [
        (owner, question.views)
        for owner, question in zip(batch.owners, batch.questions, strict=True)
    ]
    generated = model.generate(
        tokens, prompts, groups, collator.end_id, max_new_tokens, rules, decode
    )
    answers = []
    for question, ids in zip(batch.questions, generated, strict=True):
        words = [token for token in ids if token != collator.image_id]
        text = collator.tokenizer.decode(words).strip()
        truncated = not question.allowed and len(ids) >= max_new_tokens
        answers.append(Answer(question=question, text=text, truncated=truncated))
    return answers


def _rule(collator: Collator, question: Question) -> Rule | None:
    """Return the rule of an answer: one of those that a closed question allows, or its headings in order."""
    if question.allowed:
        return OneOf([[*collator.text_ids(text), collator.end_id] for text in question.allowed])
    if question.outline:
        return Outline(
            question.outline,
            all_headings(),
            collator.text_ids,
            collator.tokenizer.decode,
            collator.end_id,
            CUT,
        )
    return None


def _with_masks(
    model: VisionLanguageModel,
    collator: Collator,
    batch: QuestionBatch,
    features: Features,
    tokens: list[Tensor],
    answers: list[Answer],
    reading: MaskReading,
) -> list[Answer]:
    """Return the answers with the masks and boxes that their words ask for."""
    asked = [row for row, question in enumerate(batch.questions) if question.region is not None]
    if not asked:
        return answers
    questions = [batch.questions[row] for row in asked]
    owners = [batch.owners[row] for row in asked]
    texts = [answers[row].text for row in asked]
    rows = collator.rows(questions, owners, texts, blind=not batch.media).to(model.device)
    hidden = model.read(rows, [tokens[row] for row in asked])
    read_rows = ReadRows(features, hidden, rows, questions, owners)
    logits = reading.logits(model, batch.media, read_rows)
    answers = list(answers)
    for position, row in enumerate(asked):
        mask = None
        if position in logits:
            mask = reading.mask(logits[position], questions[position])
        elif answers[row].text == questions[position].absent:
            mask = _empty_mask(features, questions[position], owners[position])
        text = answers[row].text
        if mask is not None and questions[position].absent and not mask.any():
            # A structure that is nowhere is absent, whatever the words said.
            text = questions[position].words_for_mask(is_empty=True)
        answers[row] = replace(
            answers[row], text=text, mask=mask, spacing_mm=batch.spacings_mm[row]
        )
    return answers


def _empty_mask(features: Features, question: Question, owner: int) -> NDArray[np.bool_] | None:
    """Return a mask (Z, F, H, W) without a voxel, None where the series was not encoded."""
    region = question.region
    assert region is not None
    if (owner, region.sequence) not in features:
        return None
    finest = features.encoded(owner, region.sequence).pyramid[0]
    _, _, z, _, h, w = finest.shape
    return np.zeros((z, len(region.frames), h, w), dtype=bool)


def _with_read_outs(
    model: VisionLanguageModel,
    features: Features,
    answers: Sequence[Answer],
    owners: Sequence[int],
) -> list[Answer]:
    """Return the answers with the read-outs of the whole series that they show, quoted in their texts."""
    questions = [answer.question for answer in answers]
    shown_sets = rows_by_shown_set(features, questions, owners)
    values = _read_out_values(model, features, list(shown_sets))
    values_of_row = {
        row: of_set
        for of_set, rows in zip(values, shown_sets.values(), strict=True)
        for row in rows
    }
    completed = []
    for row, answer in enumerate(answers):
        of_row = values_of_row.get(row, {})
        text = fill_quotes(answer.text, quoted_values(of_row), answer.question.language)
        completed.append(replace(answer, text=text, read_outs=of_row))
    return completed


def _read_out_values(
    model: VisionLanguageModel, features: Features, shown_sets: Sequence[ShownSet]
) -> list[dict[str, Vector]]:
    """Return the read-outs of each set of whole series, each set read once."""
    outputs = model.read_outs(features, shown_sets)
    values = []
    for index, (study, _) in enumerate(shown_sets):
        of_set = {}
        for name, output in outputs.items():
            vector = output[index].float()
            if READ_OUTS[name].is_probability:
                vector = torch.sigmoid(vector)
            of_set[name] = vector.cpu().numpy()
        values.append(without_volumes(of_set, features.slices(study, "sax")))
    return values
