"""What an answer may say, token by token: one of the answers listed, or free text under headings in their order."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor


class Rule(ABC):
    """What may come next in one answer; it is told each token.

    Attributes:
        longest: Tokens that the answer has at most, the end among them; None where the limit of new tokens cuts it.
    """

    longest: int | None = None

    @abstractmethod
    def narrow(self, logits: Tensor, left: int) -> Tensor:
        """Logits (V,) of the next token with what is known to be forbidden at minus infinity.

        Args:
            logits: As the model gave them.
            left: Tokens that the answer may still have, this one and the end among them.
        """

    @abstractmethod
    def accepts(self, token: int) -> bool:
        """Whether a token may come next."""

    @abstractmethod
    def add(self, token: int) -> None:
        """The token that comes next."""


class OneOf(Rule):
    """One of the listed answers, whole: half of one could be taken for another.

    Args:
        answers: Token ids of each, with the end token.
    """

    def __init__(self, answers: Sequence[Sequence[int]]) -> None:
        self.answers = [list(one) for one in answers]
        self.longest = max(len(one) for one in answers)
        self.said = 0

    def narrow(self, logits: Tensor, left: int) -> Tensor:
        """Only what goes on towards one of the answers."""
        return only(logits, {one[self.said] for one in self.answers})

    def accepts(self, token: int) -> bool:
        """Whether an answer goes on with it."""
        return any(one[self.said] == token for one in self.answers)

    def add(self, token: int) -> None:
        """Drop the answers that go on otherwise."""
        self.answers = [
            one for one in self.answers if one[self.said] == token and len(one) > self.said + 1
        ]
        self.said += 1


class Outline(Rule):
    """Every heading once, in order, with free text behind each, so that what is said can be read back.

    A section may take half of what is left behind the headings that are still to come; one that would take more is
    closed with a mark.

    Args:
        headings: In their order, each with its colon and the space before it.
        forbidden: Whatever else would be read as a heading.
        encode: Text to token ids.
        decode: Token ids to text.
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
        self.headings, self.decode, self.end_id = [one.strip() for one in headings], decode, end_id
        self.forbidden = sorted({one.strip() for one in (*headings, *forbidden)})
        self.ids = [encode(one) for one in headings]
        self.cut = encode(cut)
        self.forced = list(self.ids[0])
        self.section, self.own, self.most = -1, list[int](), 0

    def narrow(self, logits: Tensor, left: int) -> Tensor:
        """What is forced, while something is."""
        if not self.forced:
            later = self.ids[self.section + 1 :]
            needed = sum(len(one) + 1 + len(self.cut) for one in later) + len(self.cut) + 1
            if not self.own:
                self.most = (left - needed) // 2 if later else left - needed
            if len(self.own) > self.most or left <= needed:
                self.forced = [*self.cut, *(later[0] if later else [self.end_id])]
        return only(logits, {self.forced[0]}) if self.forced else logits

    def accepts(self, token: int) -> bool:
        """Whether the text could be read back with it."""
        if self.forced:
            return token == self.forced[0]
        if token == self.end_id:
            return self.section + 1 == len(self.headings) and bool(self.decode(self.own).strip())
        text = self.decode([*self.own, token])
        return not self._named(text) or self._completes(text)

    def add(self, token: int) -> None:
        """Go on, into the next section where its heading is complete."""
        if self.forced:
            self.forced.pop(0)
            opened = not self.forced
        else:
            self.own.append(token)
            opened = self._completes(self.decode(self.own))
        if opened:
            self.section += 1
            self.own = []

    def _named(self, text: str) -> list[str]:
        return [one for one in self.forbidden if one in text]

    def _completes(self, text: str) -> bool:
        """Whether a section's text ends in the next heading, and holds no other."""
        following = self.headings[self.section + 1 : self.section + 2]
        if not following or self._named(text) != following:
            return False
        before, _, behind = text.partition(following[0])
        return bool(before.strip()) and not behind.strip()


def only(logits: Tensor, tokens: set[int]) -> Tensor:
    """Logits (V,) with all but some tokens at minus infinity."""
    kept = torch.full_like(logits, float("-inf"))
    places = torch.tensor(sorted(tokens), device=logits.device)
    kept[places] = logits[places]
    return kept
