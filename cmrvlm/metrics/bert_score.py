"""BERTScore from a model on this disk. It is off unless a path is given, and nothing is ever fetched."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize
from transformers import AutoModel, AutoTokenizer

from cmrvlm.config.model_source import check_no_adapter
from cmrvlm.errors import CmrvlmError
from cmrvlm.instructions.answer import AnswerWithTruth
from cmrvlm.metrics.statistic import Mean, Statistic

MAX_TOKENS = 512


def check_bert_model(path: str, layers: int) -> None:
    """Refuse a model that is not there before any answer is generated.

    Raises:
        CmrvlmError: The folder holds no model, or it has fewer layers.
    """
    if not (Path(path) / "config.json").is_file():
        raise CmrvlmError(
            "there is no model here",
            file=path,
            field="bert_score.path",
            remedy="Give the folder of a BERT model, or null to leave BERTScore out.",
        )
    depth = int(_loaded(path)[0].config.num_hidden_layers)
    if not 1 <= layers <= depth:
        raise CmrvlmError(
            f"the model has {depth} layers, layer {layers} was asked for",
            file=path,
            field="bert_score.layers",
            remedy=f"Give 1 to {depth}.",
        )


@lru_cache(maxsize=1)
def _loaded(path: str) -> tuple[Any, Any]:
    closed: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    check_no_adapter(path, "bert_score.path")
    try:
        model = AutoModel.from_pretrained(path, attn_implementation="eager", **closed)
        return model.eval(), AutoTokenizer.from_pretrained(path, **closed)
    except (OSError, ValueError) as error:
        raise CmrvlmError(
            f"the model cannot be loaded ({error})",
            file=path,
            field="bert_score.path",
            remedy="Give a folder that save_pretrained wrote; code that lies in it is never run.",
        ) from error


@torch.no_grad()
def _tokens(text: str, path: str, layers: int) -> Tensor:
    """Unit vectors (tokens, width) of a text's tokens at a layer, special tokens left out."""
    model, tokenizer = _loaded(path)
    encoded = tokenizer(
        text,
        return_tensors="pt",
        truncation=True,
        max_length=MAX_TOKENS,
        return_special_tokens_mask=True,
    )
    special = encoded.pop("special_tokens_mask")[0].bool()
    hidden = model(
        input_ids=encoded["input_ids"],
        attention_mask=encoded["attention_mask"],
        output_hidden_states=True,
    )
    return normalize(hidden.hidden_states[layers][0][~special], dim=-1)


def bert_f1(said: str, truth: str, path: str, layers: int) -> float:
    """Harmonic mean of precision and recall by greedy cosine matching of tokens (Zhang et al., ICLR 2020).

    Without weights by rarity and without rescaling. A pair of texts is scored by itself: the implementation in
    torchmetrics 1.9 mixes up pairs of different length. An empty text scores 0.
    """
    if not said.strip() or not truth.strip():
        return 0.0
    one, two = (_tokens(text, path, layers) for text in (said, truth))
    alike = one @ two.T
    precision, recall = float(alike.max(dim=1).values.mean()), float(alike.max(dim=0).values.mean())
    return 2 * precision * recall / (precision + recall)


def bert_scores(answers: Sequence[AnswerWithTruth], path: str, layers: int) -> dict[str, Statistic]:
    """F1 of BERTScore of each answer against its reference."""
    return {
        "bert_score_f1": Mean(
            [bert_f1(a.text, a.instruction.reference, path, layers) for a in answers]
        )
    }
