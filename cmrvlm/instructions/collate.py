"""Studies and instructions to a batch: prompts become token rows in which image places are counted out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from cmrvlm.errors import CmrvlmError, ends_loudly
from cmrvlm.instructions.batch import Batch, TextRows, stack_by_shape
from cmrvlm.instructions.targets import study_targets
from cmrvlm.instructions.tokens import ANSWER, IMAGE, SPECIAL_TOKENS
from cmrvlm.study.study import Study
from cmrvlm.tasks.base import Instruction, View


class Collator:
    """Builds batches.

    Args:
        tokenizer: Tokenizer with the special tokens of `cmrvlm.instructions.tokens`.
        series_tokens: Sequence to the number of tokens of a whole series in the text.
        view_tokens: Sequence to the number of tokens of one frame or slice.
        max_length: Longest row the language model takes.
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
        self.series_tokens, self.view_tokens = dict(series_tokens), dict(view_tokens)
        self.max_length, self.read_out_tokens = max_length, read_out_tokens
        self.image_id, self.answer_id = tokenizer.convert_tokens_to_ids([IMAGE, ANSWER])
        self.special_ids = set(tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS)))

    def image_places(self, views: Sequence[View]) -> int:
        """Tokens that views fill, with what is read of the whole series among them."""
        places = sum(
            (self.series_tokens if view.whole else self.view_tokens)[view.sequence]
            for view in views
        )
        return places + self.read_out_tokens * any(view.whole for view in views)

    def prompt_ids(self, instruction: Instruction, blind: bool = False) -> list[int]:
        """Begin, image places, question, and the mark after which the answer starts."""
        places = 0 if blind else self.image_places(instruction.case.views)
        question = self.tokenizer.encode(instruction.prompt, add_special_tokens=False)
        if self.special_ids & set(question):
            raise CmrvlmError(
                "the question holds a special token",
                field=instruction.prompt[:60],
                remedy="Ask without <...> marks.",
            )
        return [
            int(self.tokenizer.bos_token_id),
            *[self.image_id] * places,
            *question,
            self.answer_id,
        ]

    def rows(
        self,
        instructions: Sequence[Instruction],
        owners: Sequence[int],
        blind: bool = False,
        answers: Sequence[str] | None = None,
    ) -> TextRows:
        """Token rows of instructions with their answers, or with `answers` in place of them.

        Args:
            instructions: R instructions.
            owners: Study of each.
            blind: Leave no places for images.
            answers: Other answers than the right ones.

        Raises:
            CmrvlmError: A row is longer than the language model takes; nothing is ever cut.
        """
        texts = [i.answer for i in instructions] if answers is None else list(answers)
        prompts = [self.prompt_ids(i, blind) for i in instructions]
        end = int(self.tokenizer.eos_token_id)
        full = [
            p + self.tokenizer.encode(t, add_special_tokens=False) + [end]
            for p, t in zip(prompts, texts, strict=True)
        ]
        longest = max(range(len(full)), key=lambda k: len(full[k]))
        if len(full[longest]) > self.max_length:
            worst = instructions[longest]
            raise CmrvlmError(
                f"{worst.task} on study {worst.study_id} has {len(prompts[longest])} prompt and "
                f"{len(full[longest]) - len(prompts[longest])} answer tokens, the model takes {self.max_length}",
                field="llm.max_length",
                remedy="Show fewer sequences, use fewer image tokens, or a longer context.",
            )
        ids = torch.full((len(full), len(full[longest])), int(self.tokenizer.pad_token_id))
        for row, tokens in enumerate(full):
            ids[row, : len(tokens)] = torch.tensor(tokens)
        numbers: dict[tuple[int, tuple[View, ...]], int] = {}
        groups = [
            numbers.setdefault((owner, one.case.views), len(numbers))
            for owner, one in zip(owners, instructions, strict=True)
        ]
        images = [1 + prompt.count(self.image_id) for prompt in prompts]  # with the begin mark
        lengths = (groups, images, [len(p) for p in prompts], [len(f) for f in full])
        return TextRows(ids, *(torch.tensor(one) for one in lengths))

    @ends_loudly
    def __call__(
        self, samples: Sequence[tuple[Study, list[Instruction]]], blind: bool = False
    ) -> Batch:
        """A batch of studies with the instructions about each."""
        instructions = [one for _, asked in samples for one in asked]
        owners = [owner for owner, (_, asked) in enumerate(samples) for _ in asked]
        needed = {
            (owner, view.sequence)
            for owner, one in zip(owners, instructions, strict=True)
            for view in one.case.views
        }
        media = {}
        for name in sorted({sequence for _, sequence in needed}):
            images = [
                (o, _tensor(study.series[name].image))
                for o, (study, _) in enumerate(samples)
                if (o, name) in needed
            ]
            media[name] = stack_by_shape(images)
        studies = [samples[owner][0] for owner in owners]
        batch = Batch(
            study_ids=[study.study_id for study, _ in samples],
            media=media,
            instructions=instructions,
            owners=torch.tensor(owners),
            rows=self.rows(instructions, owners, blind),
            masks=[_target(study, one) for study, one in zip(studies, instructions, strict=True)],
            spacings_mm=[
                None if one.case.mask is None else study.series[one.case.mask.sequence].spacing_mm
                for study, one in zip(studies, instructions, strict=True)
            ],
            targets=_stacked_targets([study for study, _ in samples]),
        )
        return batch.without_images() if blind else batch


def _tensor(image: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))


def _stacked_targets(studies: Sequence[Study]) -> dict[str, Tensor]:
    each = [study_targets(study.labels) for study in studies]
    return {name: torch.from_numpy(np.stack([one[name] for one in each])) for name in each[0]}


def _target(study: Study, instruction: Instruction) -> Tensor | None:
    target = instruction.case.mask
    if target is None:
        return None
    mask = study.series[target.sequence].mask
    assert mask is not None
    return torch.from_numpy(np.ascontiguousarray(mask[:, list(target.frames)]))
