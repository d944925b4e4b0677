"""What of the language model is trained."""

from __future__ import annotations

from cmrvlm.models.language_model import LanguageModel


def frozen(llm: LanguageModel) -> LanguageModel:
    """No weight of the language model is trained."""
    llm.requires_grad_(False)
    return llm


def full(llm: LanguageModel) -> LanguageModel:
    """Every weight of the language model is trained."""
    llm.requires_grad_(True)
    return llm
