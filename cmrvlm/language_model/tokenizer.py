"""Tokenizers: byte-level BPE trained on the texts of the data, or that of a pretrained model."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from cmrvlm.config.model_source import source_of
from cmrvlm.errors import CmrvlmError
from cmrvlm.instructions.tokens import BEGIN, END, PAD, SPECIAL_TOKENS


def train_tokenizer(corpus: Iterable[str], vocab_size: int = 1500) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer for English and Chinese.

    Each digit is a token of its own, so that numbers are spelled and not memorised.

    Args:
        corpus: Texts of the training split; those of other splits must not be seen.
        vocab_size: Largest size of the vocabulary, special tokens included.

    Returns:
        The tokenizer with all special tokens.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **_special_token_settings())


def pretrained_tokenizer(
    corpus: Iterable[str],
    path: str | None = None,
    package: str | None = None,
    revision: str | None = None,
) -> PreTrainedTokenizerBase:
    """Load a pretrained model's tokenizer and add the special tokens behind its own.

    Args:
        corpus: Not read; callers pass it to `train_tokenizer` and to this function alike.
        path: Folder, hub name, or GGUF file.
        package: Package with a GGUF file, in place of a path.
        revision: Branch, tag or commit on the hub.

    Raises:
        CmrvlmError: There is no tokenizer, or it knows one of the special tokens already.
    """
    source, source_arguments = source_of(path, package)
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            source, trust_remote_code=False, revision=revision or "main", **source_arguments
        )
    except (OSError, ValueError, ImportError) as error:
        raise CmrvlmError(
            f"the tokenizer cannot be loaded ({error})",
            file=source,
            field="llm.tokenizer",
            remedy="Give a folder or a name on the hub that has one.",
        ) from error
    known = len(tokenizer)
    tokenizer.add_special_tokens(_special_token_settings())
    added_ids = sorted(tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS)))
    if added_ids != list(range(known, known + len(SPECIAL_TOKENS))):
        raise CmrvlmError(
            "the tokenizer knows some of the special tokens already",
            file=source,
            field="llm.tokenizer",
            remedy="Use the tokenizer as it was published.",
        )
    return tokenizer  # type: ignore[no-any-return]


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer that was saved with a run, without running any code of the folder.

    Raises:
        CmrvlmError: The folder holds no tokenizer, or one that cannot be loaded.
    """
    if not (folder / "tokenizer.json").is_file():
        raise CmrvlmError(
            "no tokenizer.json here", file=folder, remedy="Give the folder of a finished run."
        )
    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)  # type: ignore[no-any-return]
    except (OSError, ValueError, ImportError) as error:
        raise CmrvlmError(
            f"the tokenizer cannot be loaded ({error})",
            file=folder,
            remedy="Give the folder of a finished run.",
        ) from error


def _special_token_settings() -> dict[str, Any]:
    """Return the special tokens by the role that Transformers gives them."""
    others = [token for token in SPECIAL_TOKENS if token not in (PAD, BEGIN, END)]
    return {
        "pad_token": PAD,
        "bos_token": BEGIN,
        "eos_token": END,
        "additional_special_tokens": others,
    }
