"""Decoding: greedy, by sampling or by beam search, all prompts answered as one batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from cmrvlm.errors import CmrvlmError
from cmrvlm.language_model.answer_rules import Rule
from cmrvlm.language_model.beam_search import beam_search
from cmrvlm.language_model.network import LanguageModel
from cmrvlm.language_model.prompts import DecodingState, Prompts

# Function from logits (R, V) to the next tokens (R,).
Choice = Callable[[Tensor], Tensor]
# Rule of each row, None where the answer is free; empty where all are.
Rules = Sequence[Rule | None]


def most_likely(logits: Tensor) -> Tensor:
    """Return the most likely token (R,) of each row of logits (R, V)."""
    return logits.argmax(dim=-1)


class Sampling:
    """Nucleus sampling (Holtzman et al., ICLR 2020).

    Tokens are drawn from the smallest set of likeliest ones that has probability `top_p`.

    Args:
        temperature: Divisor of the logits; below 1 likely tokens become likelier.
        top_p: Probability that the set of likeliest tokens has together.
        seed: Seed of the draws.

    Raises:
        CmrvlmError: Temperature or probability are out of range.
    """

    def __init__(self, temperature: float = 0.7, top_p: float = 0.9, seed: int = 0) -> None:
        if temperature <= 0 or not 0 < top_p <= 1:
            raise CmrvlmError(
                f"temperature {temperature} and top_p {top_p} cannot be drawn with",
                field="decoding",
                remedy="Use a temperature above 0, and a top_p above 0 and at most 1.",
            )
        self.temperature = temperature
        self.top_p = top_p
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, logits: Tensor) -> Tensor:
        """Draw a token (R,) for each row of logits (R, V)."""
        # On the CPU, so that a seed draws the same tokens on every device.
        probabilities = torch.softmax(logits.float().cpu() / self.temperature, dim=-1)
        probabilities, order = probabilities.sort(dim=-1, descending=True)
        before = probabilities.cumsum(dim=-1) - probabilities
        nucleus = probabilities.masked_fill(before >= self.top_p, 0.0)
        drawn = torch.multinomial(nucleus, 1, generator=self.generator)
        return order.gather(1, drawn)[:, 0].to(logits.device)


@torch.no_grad()
def generate(
    llm: LanguageModel,
    prompts: Prompts,
    end_id: int,
    max_new_tokens: int,
    rules: Rules = (),
    choose: Choice = most_likely,
) -> list[list[int]]:
    """Generate the answers to a batch of prompts, token by token.

    Rows that have ended are taken out of the batch, so that one long answer does not keep all of
    them running.

    Args:
        llm: Language model.
        prompts: R prompts.
        end_id: Token that ends an answer.
        max_new_tokens: Longest answer of a row whose rule sets no limit, in tokens.
        rules: Rule of each row, None where the answer is free; they are used up.
        choose: Function from logits (R, V) to the next tokens (R,).

    Returns:
        New token ids of each row, without the end token.
    """
    state = DecodingState(llm, prompts)
    device = prompts.groups.device
    active = torch.arange(len(prompts.groups), device=device)
    answers: list[list[int]] = [[] for _ in range(len(active))]
    row_rules = list(rules) or [None] * len(answers)
    limits = torch.tensor([_limit(rule, max_new_tokens) for rule in row_rules], device=device)

    for step in range(int(limits.max())):
        active_rules = {
            index: rule
            for index, row in enumerate(active.tolist())
            if (rule := row_rules[row]) is not None
        }
        tokens = _choose_by_rules(state.logits, active_rules, max_new_tokens - step, choose)
        continues = tokens != end_id
        for row, token in zip(active[continues].tolist(), tokens[continues].tolist(), strict=True):
            answers[row].append(token)

        continues &= limits[active] > step + 1
        if not bool(continues.any()):
            break
        if not bool(continues.all()):
            rows = continues.nonzero()[:, 0]
            state.keep(rows)
            active = active[rows]
            tokens = tokens[rows]
        state.add(tokens)
    return answers


def _limit(rule: Rule | None, max_new_tokens: int) -> int:
    """Return the largest number of tokens of a row's answer, the end token included."""
    if rule is None or rule.longest is None:
        return max_new_tokens
    return rule.longest


def _choose_by_rules(
    logits: Tensor, rules: Mapping[int, Rule], left: int, choose: Choice
) -> Tensor:
    """Choose the next token of each row; rows with a rule choose again until the rule accepts.

    Args:
        logits: (R, V); forbidden tokens are set to minus infinity in place.
        rules: Index of a row to its rule, which is told the token.
        left: Number of tokens that an answer may still have.
        choose: Function from logits (R, V) to tokens (R,).

    Returns:
        (R,) tokens.
    """
    for index, rule in rules.items():
        logits[index] = rule.narrow(logits[index], left)
    tokens = choose(logits)
    for index, rule in rules.items():
        while not rule.accepts(int(tokens[index])):
            logits[index, tokens[index]] = float("-inf")
            tokens[index] = choose(logits[index : index + 1])[0]
        rule.add(int(tokens[index]))
    return tokens


class Decode(ABC):
    """A way of decoding that a configuration chooses."""

    @abstractmethod
    def __call__(
        self,
        llm: LanguageModel,
        prompts: Prompts,
        end_id: int,
        max_new_tokens: int,
        rules: Rules = (),
    ) -> list[list[int]]:
        """Return the new token ids of each row; see `generate` for the arguments."""

    @abstractmethod
    def __str__(self) -> str:
        """Return the name under which results state it."""


class Greedy(Decode):
    """Greedy decoding: the most likely token each time."""

    def __call__(
        self,
        llm: LanguageModel,
        prompts: Prompts,
        end_id: int,
        max_new_tokens: int,
        rules: Rules = (),
    ) -> list[list[int]]:
        """Return the new token ids of each row."""
        return generate(llm, prompts, end_id, max_new_tokens, rules)

    def __str__(self) -> str:
        return "greedy"


class Sampled(Decode):
    """Nucleus sampling, for rows with a rule among what it allows; see `Sampling`."""

    def __init__(self, temperature: float = 0.7, top_p: float = 0.9, seed: int = 0) -> None:
        self.settings = {"temperature": temperature, "top_p": top_p, "seed": seed}
        self.sampling = Sampling(temperature, top_p, seed)

    def __call__(
        self,
        llm: LanguageModel,
        prompts: Prompts,
        end_id: int,
        max_new_tokens: int,
        rules: Rules = (),
    ) -> list[list[int]]:
        """Return the new token ids of each row."""
        return generate(llm, prompts, end_id, max_new_tokens, rules, self.sampling)

    def __str__(self) -> str:
        return f"sampled {self.settings}"


class Beams(Decode):
    """Beam search for free answers; answers with a rule are decoded greedily.

    Args:
        count: Number of unfinished answers that are kept for each prompt.

    Raises:
        CmrvlmError: The number is below one.
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
        """Return the new token ids of each row."""
        ruled_rows = [row for row, rule in enumerate(rules) if rule]
        free_rows = [row for row in range(len(prompts.groups)) if row not in ruled_rows]
        answers: dict[int, list[int]] = {}
        if ruled_rows:
            chosen_rules = [rules[row] for row in ruled_rows]
            ruled_prompts = prompts.rows(ruled_rows)
            ruled = generate(llm, ruled_prompts, end_id, max_new_tokens, chosen_rules)
            answers |= dict(zip(ruled_rows, ruled, strict=True))
        if free_rows:
            free = beam_search(llm, prompts.rows(free_rows), end_id, max_new_tokens, self.count)
            answers |= dict(zip(free_rows, free, strict=True))
        return [answers[row] for row in range(len(prompts.groups))]

    def __str__(self) -> str:
        return f"{self.count} beams"
