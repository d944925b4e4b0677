"""Collate studies and instructions into batches, with places for images counted out in the text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from cmrvlm.errors import CmrvlmError, raises_on_stop_iteration
from cmrvlm.instructions.batch import Batch, Media, QuestionBatch, TextRows, stack_by_shape
from cmrvlm.instructions.instruction import Instruction
from cmrvlm.instructions.question import Question, View
from cmrvlm.instructions.read_outs import study_targets
from cmrvlm.instructions.tokens import ANSWER, IMAGE, SPECIAL_TOKENS
from cmrvlm.study.evidence import visible_labels
from cmrvlm.study.study import Study, StudyLabels


class Collator:
    """Builds batches.

    Args:
        tokenizer: Tokenizer with the special tokens of `cmrvlm.instructions.tokens`.
        series_tokens: Sequence to the number of tokens of a whole series in the text.
        view_tokens: Sequence to the number of tokens of one frame or slice.
        max_length: Longest row that the language model takes.
        read_out_tokens: Tokens behind the images of a row that shows whole series, see `cmrvlm.models.read_out`.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        series_tokens: Mapping[str, int],
        view_tokens: Mapping[str, int],
        max_length: int = 1024,
        read_out_tokens: int = 0,
    ) -> None:
        self.tokenizer = tokenizer
        self.series_tokens = dict(series_tokens)
        self.view_tokens = dict(view_tokens)
        self.max_length = max_length
        self.read_out_tokens = read_out_tokens
        self.image_id, self.answer_id = tokenizer.convert_tokens_to_ids([IMAGE, ANSWER])
        self.special_ids = set(tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS)))
        self.end_id = int(tokenizer.eos_token_id)

    def content_of_lengths(self) -> dict[str, Any]:
        """Return everything that the lengths of rows depend on, as plain data."""
        vocabulary = json.dumps(self.tokenizer.get_vocab(), sort_keys=True)
        # Merges and splits of words change lengths too, whatever the vocabulary is.
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        rules = "" if backend is None else backend.to_str()
        return {
            "tokenizer": hashlib.sha256(f"{vocabulary}{rules}".encode()).hexdigest(),
            "series_tokens": self.series_tokens,
            "view_tokens": self.view_tokens,
            "read_out_tokens": self.read_out_tokens,
            "max_length": self.max_length,
        }

    def image_places(self, views: Sequence[View]) -> int:
        """Return the number of tokens that views fill, those of the read-outs of whole series included."""
        places = 0
        for view in views:
            tokens = self.series_tokens if view.whole else self.view_tokens
            places += tokens[view.sequence]
        if any(view.whole for view in views):
            places += self.read_out_tokens
        return places

    def text_ids(self, text: str) -> list[int]:
        """Return the token ids of a text, without begin and end."""
        return [int(token) for token in self.tokenizer.encode(text, add_special_tokens=False)]

    def prompt_ids(self, question: Question, *, blind: bool = False) -> list[int]:
        """Return begin, image places, question, and the mark after which the answer starts.

        Args:
            question: What is asked.
            blind: Leave no places for images.

        Raises:
            CmrvlmError: The question holds a special token.
        """
        places = 0 if blind else self.image_places(question.views)
        words = self.text_ids(question.prompt)
        if self.special_ids & set(words):
            raise CmrvlmError(
                "the question holds a special token",
                field=question.prompt[:60],
                remedy="Ask without <...> marks.",
            )
        begin = int(self.tokenizer.bos_token_id)
        return [begin, *[self.image_id] * places, *words, self.answer_id]

    def rows(
        self,
        questions: Sequence[Question],
        owners: Sequence[int],
        answers: Sequence[str],
        *,
        blind: bool = False,
    ) -> TextRows:
        """Return token rows of questions with answers.

        Args:
            questions: R questions.
            owners: Index of the study of each question.
            answers: Text of each answer.
            blind: Leave no places for images.

        Raises:
            CmrvlmError: A row is longer than the language model takes; nothing is ever cut.
        """
        prompts = [self.prompt_ids(question, blind=blind) for question in questions]
        rows = [
            [*prompt, *self.text_ids(answer), self.end_id]
            for prompt, answer in zip(prompts, answers, strict=True)
        ]
        self._check_lengths(questions, prompts, rows)
        longest = max(len(row) for row in rows)
        ids = torch.full((len(rows), longest), int(self.tokenizer.pad_token_id))
        for index, row in enumerate(rows):
            ids[index, : len(row)] = torch.tensor(row)
        group_of: dict[tuple[int, tuple[View, ...]], int] = {}
        groups = [
            group_of.setdefault((owner, question.views), len(group_of))
            for owner, question in zip(owners, questions, strict=True)
        ]
        return TextRows(
            ids=ids,
            groups=torch.tensor(groups),
            # With the begin token.
            image_lengths=torch.tensor([1 + prompt.count(self.image_id) for prompt in prompts]),
            prompt_lengths=torch.tensor([len(prompt) for prompt in prompts]),
            lengths=torch.tensor([len(row) for row in rows]),
        )

    def _check_lengths(
        self,
        questions: Sequence[Question],
        prompts: Sequence[list[int]],
        rows: Sequence[list[int]],
    ) -> None:
        longest = max(range(len(rows)), key=lambda index: len(rows[index]))
        if len(rows[longest]) <= self.max_length:
            return
        question = questions[longest]
        prompt_length = len(prompts[longest])
        raise CmrvlmError(
            f"{question.task} on study {question.study_id} has {prompt_length} prompt and "
            f"{len(rows[longest]) - prompt_length} answer tokens, the model takes {self.max_length}",
            field="llm.max_length",
            remedy="Show fewer sequences, use fewer image tokens, or a longer context.",
        )

    @raises_on_stop_iteration
    def __call__(
        self, samples: Sequence[tuple[Study, list[Instruction]]], *, blind: bool = False
    ) -> Batch:
        """Return a batch of studies with the instructions about each.

        Args:
            samples: Pairs of a study and the instructions about it.
            blind: Leave the images out, and their places in the text.
        """
        instructions = [instruction for _, asked in samples for instruction in asked]
        owners = [owner for owner, (_, asked) in enumerate(samples) for _ in asked]
        studies = [samples[owner][0] for owner in owners]
        answers = [instruction.answer for instruction in instructions]
        targets = [study_targets(_visible_labels(study, asked)) for study, asked in samples]
        batch = Batch(
            study_ids=[study.study_id for study, _ in samples],
            media=_media_of([study for study, _ in samples], owners, instructions),
            instructions=instructions,
            owners=torch.tensor(owners),
            rows=self.rows(instructions, owners, answers, blind=blind),
            masks=[
                _target_mask(study, instruction)
                for study, instruction in zip(studies, instructions, strict=True)
            ],
            spacings_mm=_spacings_mm(studies, instructions),
            targets={
                name: torch.from_numpy(np.stack([target[name] for target in targets]))
                for name in targets[0]
            },
        )
        return batch.without_images() if blind else batch

    def questions(self, samples: Sequence[tuple[Study, Sequence[Question]]]) -> QuestionBatch:
        """Return a batch of studies with questions about each; nothing about the answers is needed.

        Args:
            samples: Pairs of a study and the questions about it.
        """
        questions = [question for _, asked in samples for question in asked]
        owners = [owner for owner, (_, asked) in enumerate(samples) for _ in asked]
        studies = [samples[owner][0] for owner in owners]
        return QuestionBatch(
            media=_media_of([study for study, _ in samples], owners, questions),
            questions=questions,
            owners=owners,
            spacings_mm=_spacings_mm(studies, questions),
        )


def _visible_labels(study: Study, asked: Sequence[Instruction]) -> StudyLabels:
    """Return the labels of a study that the series which its instructions show can show."""
    shown = {view.sequence for instruction in asked for view in instruction.views}
    return visible_labels(study, shown)


def _media_of(
    studies: Sequence[Study], owners: Sequence[int], questions: Sequence[Question]
) -> dict[str, list[Media]]:
    """Return the images that questions show, stacked by sequence and shape."""
    needed = {
        (owner, view.sequence)
        for owner, question in zip(owners, questions, strict=True)
        for view in question.views
    }
    media = {}
    for name in sorted({sequence for _, sequence in needed}):
        images = [
            (owner, _tensor(study.series[name].image))
            for owner, study in enumerate(studies)
            if (owner, name) in needed
        ]
        media[name] = stack_by_shape(images)
    return media


def _spacings_mm(
    studies: Sequence[Study], questions: Sequence[Question]
) -> list[tuple[float, float, float] | None]:
    """Return the spacing along (Z, H, W) of the series that each question's region lies on, or None."""
    spacings: list[tuple[float, float, float] | None] = []
    for study, question in zip(studies, questions, strict=True):
        if question.region is None:
            spacings.append(None)
        else:
            spacings.append(study.series[question.region.sequence].spacing_mm)
    return spacings


def _tensor(image: NDArray[np.floating]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))


def _target_mask(study: Study, instruction: Instruction) -> Tensor | None:
    """Return the mask values (Z, F, H, W) in the frames of an instruction's region, None without one."""
    region = instruction.region
    if region is None:
        return None
    mask = study.series[region.sequence].mask
    assert mask is not None
    return torch.from_numpy(np.ascontiguousarray(mask[:, list(region.frames)]))
