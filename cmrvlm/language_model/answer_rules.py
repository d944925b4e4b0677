"""Rules for constrained decoding: one of the listed answers, or free text under given headings."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor


class Rule(ABC):
    """A constraint on the tokens of one answer, with the state of the answer so far.

    For each token, decoding calls `narrow`, chooses a token until `accepts` is true, and calls
    `add`.

    Attributes:
        longest: Largest number of tokens of the answer, the end token included; None where only the
            limit of new tokens ends it.
    """

    longest: int | None = None

    @abstractmethod
    def narrow(self, logits: Tensor, left: int) -> Tensor:
        """Return the logits of the next token, minus infinity for tokens known to be forbidden.

        Args:
            logits: (V,) as the language model gave them.
            left: Number of tokens that the answer may still have, this one and the end token
                included.

        Returns:
            (V,) narrowed logits.
        """

    @abstractmethod
    def accepts(self, token: int) -> bool:
        """Return True if the token may come next."""

    @abstractmethod
    def add(self, token: int) -> None:
        """Append the token to the answer."""


class OneOf(Rule):
    """A rule that allows one of the listed answers, always whole.

    Half of an answer could be taken for another.

    Args:
        answers: Token ids of each answer, the end token included.
    """

    def __init__(self, answers: Sequence[Sequence[int]]) -> None:
        self.answers = [list(answer) for answer in answers]
        self.longest = max(len(answer) for answer in answers)
        self.length = 0

    def narrow(self, logits: Tensor, left: int) -> Tensor:
        """Return the logits (V,), minus infinity for tokens that continue none of the answers."""
        return only(logits, {answer[self.length] for answer in self.answers})

    def accepts(self, token: int) -> bool:
        """Return True if the token continues one of the answers."""
        return any(answer[self.length] == token for answer in self.answers)

    def add(self, token: int) -> None:
        """Append the token and drop the answers that it does not continue."""
        self.answers = [
            answer
            for answer in self.answers
            if answer[self.length] == token and len(answer) > self.length + 1
        ]
        self.length += 1


class Outline(Rule):
    """A rule that requires every heading once, in order, with free text behind each.

    The sections can then be read back from the text. A section may take half of the tokens that the
    later headings leave over; one that would take more is closed with a mark.

    Args:
        headings: Headings in their order, each with its colon and the space before it.
        forbidden: Other texts that would be read as a heading.
        encode: Function from text to token ids.
        decode: Function from token ids to text.
        end_id: Token that ends the answer.
        cut: Mark of a section that was not finished.
    """

    def __init__(
        self,
        headings: Sequence[str],
        forbidden: Sequence[str],
        encode: Callable[[str], list[int]],
        decode: Callable[[list[int]], str],
        end_id: int,
        cut: str,
    ) -> None:
        self.headings = [heading.strip() for heading in headings]
        self.decode = decode
        self.end_id = end_id
        self.all_headings = sorted({heading.strip() for heading in (*headings, *forbidden)})
        self.heading_ids = [encode(heading) for heading in headings]
        self.cut_ids = encode(cut)
        # Tokens that must come next, whatever the language model prefers.
        self.forced = list(self.heading_ids[0])
        self.section = -1
        self.section_ids: list[int] = []
        self.section_limit = 0

    def narrow(self, logits: Tensor, left: int) -> Tensor:
        """Return the logits (V,), all but the token that must come next at minus infinity.

        They are returned unchanged where the choice is free.
        """
        if not self.forced:
            self._close_section_at_limit(left)
        if self.forced:
            return only(logits, {self.forced[0]})
        return logits

    def accepts(self, token: int) -> bool:
        """Return True if the sections can still be read back from the text with the token."""
        if self.forced:
            return token == self.forced[0]
        if token == self.end_id:
            is_last_section = self.section + 1 == len(self.headings)
            return is_last_section and bool(self.decode(self.section_ids).strip())
        text = self.decode([*self.section_ids, token])
        return not self._headings_in(text) or self._ends_in_next_heading(text)

    def add(self, token: int) -> None:
        """Append the token; begin the next section if it completes that section's heading."""
        if self.forced:
            self.forced.pop(0)
            is_heading_complete = not self.forced
        else:
            self.section_ids.append(token)
            is_heading_complete = self._ends_in_next_heading(self.decode(self.section_ids))

        if is_heading_complete:
            self.section += 1
            self.section_ids = []

    def _close_section_at_limit(self, left: int) -> None:
        """Force the mark of a cut and the next heading where a section has used up its tokens.

        The last section is followed by the end token in place of a heading.

        Args:
            left: Number of tokens that the answer may still have.
        """
        later_headings = self.heading_ids[self.section + 1 :]
        # Each later section needs its heading, a token of text and the mark; this one the mark and
        # the end token.
        needed = sum(len(ids) + 1 + len(self.cut_ids) for ids in later_headings)
        needed += len(self.cut_ids) + 1

        if not self.section_ids:
            self.section_limit = left - needed
            if later_headings:
                self.section_limit //= 2

        if len(self.section_ids) > self.section_limit or left <= needed:
            following = later_headings[0] if later_headings else [self.end_id]
            self.forced = [*self.cut_ids, *following]

    def _headings_in(self, text: str) -> list[str]:
        """Return the headings, of any outline, that the text contains."""
        return [heading for heading in self.all_headings if heading in text]

    def _ends_in_next_heading(self, text: str) -> bool:
        """Return True if the text of a section ends in the next heading and contains no other."""
        next_heading = self.headings[self.section + 1 : self.section + 2]
        if not next_heading or self._headings_in(text) != next_heading:
            return False
        before, _, behind = text.partition(next_heading[0])
        return bool(before.strip()) and not behind.strip()


def only(logits: Tensor, tokens: set[int]) -> Tensor:
    """Return a copy of the logits (V,) with all but the given tokens at minus infinity."""
    narrowed = torch.full_like(logits, float("-inf"))
    token_ids = torch.tensor(sorted(tokens), device=logits.device)
    narrowed[token_ids] = logits[token_ids]
    return narrowed
