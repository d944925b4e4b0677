"""Ways of decoding that a configuration chooses from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from cmrvlm.errors import CmrvlmError
from cmrvlm.language_model.answer_rules import Rule
from cmrvlm.language_model.generation import Prompts, Sampling, beam_search, generate
from cmrvlm.language_model.network import LanguageModel

Rules = Sequence[Rule | None]


class Decode(ABC):
    """Prompts to answers."""

    @abstractmethod
    def __call__(
        self,
        llm: LanguageModel,
        prompts: Prompts,
        end_id: int,
        max_new_tokens: int,
        rules: Rules = (),
    ) -> list[list[int]]:
        """New token ids of each row; see `cmrvlm.language_model.generation.generate`."""

    @abstractmethod
    def __str__(self) -> str:
        """How it is named in results."""


class Greedy(Decode):
    """The likeliest token each time."""

    def __call__(
        self,
        llm: LanguageModel,
        prompts: Prompts,
        end_id: int,
        max_new_tokens: int,
        rules: Rules = (),
    ) -> list[list[int]]:
        """The answers."""
        return generate(llm, prompts, end_id, max_new_tokens, rules)

    def __str__(self) -> str:
        return "greedy"


class Sampled(Decode):
    """Draws; see `cmrvlm.language_model.generation.Sampling` for the arguments. What rules allow is drawn from."""

    def __init__(self, temperature: float = 0.7, top_p: float = 0.9, seed: int = 0) -> None:
        self.settings = {"temperature": temperature, "top_p": top_p, "seed": seed}
        self.draw = Sampling(temperature, top_p, seed)

    def __call__(
        self,
        llm: LanguageModel,
        prompts: Prompts,
        end_id: int,
        max_new_tokens: int,
        rules: Rules = (),
    ) -> list[list[int]]:
        """The answers."""
        return generate(llm, prompts, end_id, max_new_tokens, rules, self.draw)

    def __str__(self) -> str:
        return f"sampled {self.settings}"


class Beams(Decode):
    """Beam search for free answers; answers with a rule are gone through token by token, as with `Greedy`.

    Args:
        count: Unfinished answers that are kept for each prompt.
    """

    def __init__(self, count: int = 4) -> None:
        if count < 1:
            raise CmrvlmError(f"{count} beams", field="decoding.count", remedy="Use at least one.")
        self.count = count

    def __call__(
        self,
        llm: LanguageModel,
        prompts: Prompts,
        end_id: int,
        max_new_tokens: int,
        rules: Rules = (),
    ) -> list[list[int]]:
        """The answers."""
        bound = [row for row, own in enumerate(rules) if own]
        free = [row for row in range(len(prompts.groups)) if row not in bound]
        answers: dict[int, list[int]] = {}
        if bound:
            told = [rules[row] for row in bound]
            found = generate(llm, prompts.rows(bound), end_id, max_new_tokens, told)
            answers |= dict(zip(bound, found, strict=True))
        if free:
            found = beam_search(llm, prompts.rows(free), end_id, max_new_tokens, self.count)
            answers |= dict(zip(free, found, strict=True))
        return [answers[row] for row in range(len(prompts.groups))]

    def __str__(self) -> str:
        return f"{self.count} beams"
