"""The tiny model's own tokenizer: byte-level BPE, trained on the corpus of the data and saved with the run."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from cmrvlm.errors import CmrvlmError
from cmrvlm.text.tokens import BEGIN, END, PAD, SPECIAL_TOKENS


def train_tokenizer(corpus: Iterable[str], vocab_size: int = 1500) -> PreTrainedTokenizerFast:
    """A tokenizer for English and Chinese. Digits stay single, so that numbers are spelled and not memorised.

    Args:
        corpus: Texts of the training split; nothing else may be seen.
        vocab_size: Upper limit of the vocabulary, special tokens included.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
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


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Read a tokenizer saved with a run.

    Raises:
        CmrvlmError: The folder holds none.
    """
    if not (folder / "tokenizer.json").is_file():
        raise CmrvlmError("no tokenizer.json here", file=folder, remedy="Give the folder of a finished run.")
    return PreTrainedTokenizerFast.from_pretrained(folder)
