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

# Cut into tokens once when a tokenizer is loaded.
_PROBE = "LVEF 55 %, 左心室。"


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
    tokenizer = _load(
        source,
        "Give a folder or a name on the hub that has one.",
        revision=revision or "main",
        **source_arguments,
    )
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
    tokenizer = _load(str(folder), "Give the folder of a finished run.")
    known = tokenizer.get_vocab()
    missing = [token for token in SPECIAL_TOKENS if token not in known]
    if missing:
        raise CmrvlmError(
            f"the tokenizer lacks the token {missing[0]}",
            file=folder,
            field="llm.tokenizer",
            remedy="Give the folder of a finished run.",
        )
    return tokenizer


def _load(source: str, remedy: str, **settings: Any) -> PreTrainedTokenizerBase:
    """Load a tokenizer without running any code of its folder.

    Args:
        source: Folder or hub name.
        remedy: What the user can do if that fails, for the error.
        **settings: Further arguments of `from_pretrained`.

    Raises:
        CmrvlmError: There is none, it is damaged, or cutting a text into tokens fails.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False, **settings)
        # Some damage shows only when a text is cut.
        tokenizer.decode(tokenizer.encode(_PROBE))
    # The library behind it raises plain exceptions for files that it cannot parse.
    except Exception as error:
        known = (OSError, ValueError, TypeError, LookupError, AttributeError, ImportError)
        if not (type(error) is Exception or isinstance(error, (*known, RuntimeError))):
            raise
        raise CmrvlmError(
            f"the tokenizer cannot be loaded ({error})",
            file=source,
            field="llm.tokenizer",
            remedy=remedy,
        ) from error
    return tokenizer  # type: ignore[no-any-return]


def _special_token_settings() -> dict[str, Any]:
    """Return the special tokens by the role that Transformers gives them."""
    others = [token for token in SPECIAL_TOKENS if token not in (PAD, BEGIN, END)]
    return {
        "pad_token": PAD,
        "bos_token": BEGIN,
        "eos_token": END,
        "additional_special_tokens": others,
    }
