"""Beam search over the answers to a batch of prompts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cmrvlm.language_model.network import LanguageModel
from cmrvlm.language_model.prompts import DecodingState, Prompts


@dataclass
class _Beams:
    """Unfinished answers of a beam search, U in all, and the best finished answer of each prompt.

    Attributes:
        answers: Token ids of each unfinished answer.
        scores: (U,) log-probability of each.
        rows: (U,) prompt of each.
        best_scores: Log-probability per token of each prompt's best finished answer, the end token
            included.
        best_answers: Token ids of that answer, without the end token.
    """

    answers: list[list[int]]
    scores: Tensor
    rows: Tensor
    best_scores: list[float]
    best_answers: list[list[int]]

    @classmethod
    def of_prompts(cls, prompts: Prompts) -> _Beams:
        """Return an empty unfinished answer for each prompt."""
        device = prompts.groups.device
        count = len(prompts.groups)
        return cls(
            answers=[[] for _ in range(count)],
            scores=torch.zeros(count, device=device),
            rows=torch.arange(count, device=device),
            best_scores=[float("-inf")] * count,
            best_answers=[[] for _ in range(count)],
        )

    def finish(self, end_scores: list[float]) -> None:
        """Update each prompt's best answer.

        Args:
            end_scores: Log-probability of each unfinished answer with the end token behind it.
        """
        rows = self.rows.tolist()
        for answer, row, end_score in zip(self.answers, rows, end_scores, strict=True):
            score = end_score / (len(answer) + 1)
            if score > self.best_scores[row]:
                self.best_scores[row] = score
                self.best_answers[row] = answer

    def extend(self, totals: Tensor, beams: int, longest: int) -> tuple[Tensor, Tensor]:
        """Extend the unfinished answers by the tokens that make the likeliest ones.

        Args:
            totals: (U, V) log-probability of each unfinished answer with each token behind it.
            beams: Number of unfinished answers that are kept for each prompt.
            longest: Largest number of tokens of an answer, the end token included.

        Returns:
            The answers that were extended (K,), as indices below U, and their new tokens (K,).
        """
        vocab_size = totals.shape[1]
        parents: list[int] = []
        tokens: list[int] = []
        scores: list[float] = []
        for row, best_score in enumerate(self.best_scores):
            candidates = (self.rows == row).nonzero()[:, 0]
            top = totals[candidates].flatten().topk(min(beams, len(candidates) * vocab_size))
            for score, index in zip(top.values.tolist(), top.indices.tolist(), strict=True):
                # Log-probabilities only fall: an answer that cannot be the best any more is
                # dropped.
                if score / longest > best_score:
                    parents.append(int(candidates[index // vocab_size]))
                    tokens.append(index % vocab_size)
                    scores.append(score)

        device = self.rows.device
        chosen = torch.tensor(parents, device=device, dtype=torch.long)
        self.answers = [
            [*self.answers[parent], token] for parent, token in zip(parents, tokens, strict=True)
        ]
        self.scores = torch.tensor(scores, device=device)
        self.rows = self.rows[chosen]
        return chosen, torch.tensor(tokens, device=device)


@torch.no_grad()
def beam_search(
    llm: LanguageModel, prompts: Prompts, end_id: int, max_new_tokens: int, beams: int = 4
) -> list[list[int]]:
    """Return the answers of highest log-probability per token that a beam search finds.

    Args:
        llm: Language model.
        prompts: R prompts.
        end_id: Token that ends an answer.
        max_new_tokens: Longest answer in tokens.
        beams: Number of unfinished answers that are kept for each prompt.

    Returns:
        New token ids of each row, without the end token.
    """
    state = DecodingState(llm, prompts)
    search = _Beams.of_prompts(prompts)
    for step in range(max_new_tokens + 1):
        totals = search.scores[:, None] + state.logits.float().log_softmax(dim=-1)  # (U, V)
        search.finish(totals[:, end_id].tolist())
        if step == max_new_tokens:
            break
        totals[:, end_id] = float("-inf")
        parents, tokens = search.extend(totals, beams, max_new_tokens + 1)
        if not len(parents):
            break
        state.keep(parents)
        state.add(tokens)
    return search.best_answers
