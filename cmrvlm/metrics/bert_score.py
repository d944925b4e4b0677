"""BERTScore by a model on this disk. It is off unless a path is given, and nothing is fetched."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize
from transformers import AutoModel, AutoTokenizer

from cmrvlm.config.model_folder import reading_model
from cmrvlm.errors import CmrvlmError
from cmrvlm.instructions.answer import AnswerWithTruth
from cmrvlm.metrics.statistic import Mean, Statistic

MAX_TOKENS = 512


def check_bert_model(path: str, layers: int) -> None:
    """Refuse a model that is missing or too shallow before any answer is generated.

    Args:
        path: Folder of a BERT model.
        layers: Layer whose hidden states are compared.

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
    model, _ = _load(path)
    depth = int(model.config.num_hidden_layers)
    if not 1 <= layers <= depth:
        raise CmrvlmError(
            f"the model has {depth} layers, layer {layers} was asked for",
            file=path,
            field="bert_score.layers",
            remedy=f"Give 1 to {depth}.",
        )


@lru_cache(maxsize=1)
def _load(path: str) -> tuple[Any, Any]:
    """Load model and tokenizer from a folder, without network access or foreign code."""
    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    remedy = "Give a folder that save_pretrained wrote; code that lies in it is never run."
    with reading_model(path, "bert_score.path", remedy):
        model = AutoModel.from_pretrained(path, attn_implementation="eager", **local)
        return model.eval(), AutoTokenizer.from_pretrained(path, **local)


@torch.no_grad()
def _token_vectors(text: str, path: str, layers: int) -> Tensor:
    """Return the unit vectors (tokens, width) of a text at a layer, special tokens left out.

    Args:
        text: Text to embed, cut at `MAX_TOKENS`.
        path: Folder of the model.
        layers: Layer whose hidden states are taken.
    """
    model, tokenizer = _load(path)
    encoded = tokenizer(
        text,
        return_tensors="pt",
        truncation=True,
        max_length=MAX_TOKENS,
        return_special_tokens_mask=True,
    )
    is_special = encoded.pop("special_tokens_mask")[0].bool()
    output = model(
        input_ids=encoded["input_ids"],
        attention_mask=encoded["attention_mask"],
        output_hidden_states=True,
    )
    hidden = output.hidden_states[layers][0]  # (tokens, width)
    return normalize(hidden[~is_special], dim=-1)


def bert_f1(predicted: str, truth: str, path: str, layers: int) -> float:
    """Compute the harmonic mean of precision and recall by greedy cosine matching of tokens.

    Zhang et al., ICLR 2020, without weights by rarity and without rescaling. Each pair of texts is
    scored by itself: the implementation in torchmetrics 1.9 mixes up pairs of different length.

    Args:
        predicted: Generated text; an empty one scores 0.
        truth: Reference text; an empty one scores 0.
        path: Folder of the model.
        layers: Layer whose hidden states are compared.
    """
    if not predicted.strip() or not truth.strip():
        return 0.0
    predicted_vectors = _token_vectors(predicted, path, layers)
    true_vectors = _token_vectors(truth, path, layers)
    similarity = predicted_vectors @ true_vectors.T  # (predicted tokens, true tokens)
    precision = float(similarity.max(dim=1).values.mean())
    recall = float(similarity.max(dim=0).values.mean())
    return 2 * precision * recall / (precision + recall)


def bert_scores(answers: Sequence[AnswerWithTruth], path: str, layers: int) -> dict[str, Statistic]:
    """Return the mean BERTScore F1 of answers against their references.

    Args:
        answers: Answers to questions about text.
        path: Folder of the model.
        layers: Layer whose hidden states are compared.
    """
    values = [
        bert_f1(answer.text, answer.instruction.reference, path, layers) for answer in answers
    ]
    return {"bert_score_f1": Mean(values)}
