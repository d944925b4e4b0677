"""The tiny model's own tokenizer: byte-level BPE, trained on the corpus of the data and saved with the run."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from cmrvlm.config.model_source import source_of
from cmrvlm.errors import CmrvlmError
from cmrvlm.instructions.tokens import BEGIN, END, PAD, SPECIAL_TOKENS


def train_tokenizer(corpus: Iterable[str], vocab_size: int = 1500) -> PreTrainedTokenizerFast:
    """A tokenizer for English and Chinese. Digits stay single, so that numbers are spelled and not memorised.

    Args:
        corpus: Texts of the training split; nothing else may be seen.
        vocab_size: Upper limit of the vocabulary, special tokens included.
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
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BEGIN,
        eos_token=END,
        additional_special_tokens=[t for t in SPECIAL_TOKENS if t not in (PAD, BEGIN, END)],
    )


def pretrained_tokenizer(
    corpus: Iterable[str],
    path: str | None = None,
    package: str | None = None,
    revision: str | None = None,
) -> PreTrainedTokenizerBase:
    """A pretrained model's tokenizer with the special tokens behind its own.

    Args:
        corpus: Not read; here for the same call as `train_tokenizer`.
        path: Folder, hub name, or GGUF file.
        package: Package with a GGUF file, in place of a path.
        revision: Branch, tag or commit on the hub.

    Raises:
        CmrvlmError: There is no tokenizer, or it knows one of the special tokens already.
    """
    where, told = source_of(path, package)
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            where, trust_remote_code=False, revision=revision or "main", **told
        )
    except (OSError, ValueError, ImportError) as error:
        raise CmrvlmError(
            f"the tokenizer cannot be loaded ({error})",
            file=where,
            field="llm.tokenizer",
            remedy="Give a folder or a name on the hub that has one.",
        ) from error
    known = len(tokenizer)
    tokenizer.add_special_tokens(
        {
            "pad_token": PAD,
            "bos_token": BEGIN,
            "eos_token": END,
            "additional_special_tokens": [t for t in SPECIAL_TOKENS if t not in (PAD, BEGIN, END)],
        }
    )
    if sorted(tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS))) != list(
        range(known, known + len(SPECIAL_TOKENS))
    ):
        raise CmrvlmError(
            "the tokenizer knows some of the special tokens already",
            file=where,
            field="llm.tokenizer",
            remedy="Use the tokenizer as it was published.",
        )
    return tokenizer  # type: ignore[no-any-return]


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Read a tokenizer saved with a run, without any code that lies beside it.

    Raises:
        CmrvlmError: The folder holds none, or one that cannot be read.
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
