"""BERTScore from a model on this disk. It is off unless a path is given, and nothing is ever fetched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torchmetrics.functional.text.bert import bert_score
from transformers import AutoModel, AutoTokenizer

from cmrvlm.errors import CmrvlmError
from cmrvlm.metrics.statistic import Mean, Statistic
from cmrvlm.tasks.base import Answer

MAX_TOKENS = 512


def check_bert_model(path: str, layers: int) -> None:
    """Refuse a model that is not there before any answer is generated.

    Raises:
        CmrvlmError: The folder holds no model, or it has fewer layers.
    """
    if not (Path(path) / "config.json").is_file():
        raise CmrvlmError("there is no model here", file=path, field="bert_score.path",
                          remedy="Give the folder of a BERT model, or null to leave BERTScore out.")  # fmt: skip
    depth = int(AutoModel.from_pretrained(path, local_files_only=True).config.num_hidden_layers)
    if not 1 <= layers <= depth:
        raise CmrvlmError(f"the model has {depth} layers, layer {layers} was asked for", file=path,
                          field="bert_score.layers", remedy=f"Give 1 to {depth}.")  # fmt: skip


def bert_scores(answers: Sequence[Answer], path: str, layers: int) -> dict[str, Statistic]:
    """F1 of BERTScore (Zhang et al., ICLR 2020) of each answer against its reference, without rescaling."""
    if not answers:
        return {"bert_score_f1": Mean([])}
    model = AutoModel.from_pretrained(path, local_files_only=True).eval()
    tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    with torch.no_grad():
        result = bert_score(
            [a.text for a in answers], [a.instruction.reference for a in answers], model=model,
            user_tokenizer=tokenizer, user_forward_fn=_layer(layers), max_length=MAX_TOKENS, truncation=True,
        )  # fmt: skip
    values = torch.as_tensor(result["f1"]).reshape(-1)
    return {"bert_score_f1": Mean([float(v) for v in values])}


def _layer(layers: int) -> Callable[[torch.nn.Module, dict[str, torch.Tensor]], torch.Tensor]:
    def forward(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        out = model(batch["input_ids"], batch["attention_mask"], output_hidden_states=True)
        return torch.as_tensor(out.hidden_states[layers])

    return forward
