"""A stored result of a check is used again only where it would be the same."""

from dataclasses import replace

import pytest

from cmrvlm.instructions.collate import Collator
from cmrvlm.language_model.tokenizer import train_tokenizer
from cmrvlm.tasks.mixture import Mixture
from cmrvlm.tasks.perception import LevelTask, SequenceTask
from data_modules.checking.run import CheckRun
from data_modules.sources.phantom.source import PhantomSource

CORPORA = (
    ["Which sequence is this?", "这是什么序列？"] * 20,
    ["Etwas ganz anderes steht hier.", "Und auch hier."] * 20,
)

TOKENS = {"sax": 4, "lax_4ch": 4, "lge": 4}
VIEWS = {"sax": 2, "lax_4ch": 2, "lge": 2}


@pytest.fixture(scope="module")
def tokenizers():
    return [train_tokenizer(corpus, vocab_size=400) for corpus in CORPORA]


@pytest.fixture
def run(tokenizers, tmp_path):
    source = PhantomSource(count=1, size=32, slices=2, frames=2)
    collator = Collator(tokenizers[0], TOKENS, VIEWS)
    return CheckRun(source, tmp_path, Mixture({"sequence": SequenceTask()}), collator, workers=1)


def test_the_same_settings_are_the_same_key(run, tokenizers):
    again = replace(run, collator=Collator(tokenizers[0], TOKENS, VIEWS))
    assert again.digest("phantom-0-00000") == run.digest("phantom-0-00000")


def test_another_tokenizer_or_other_images_are_another_key(run, tokenizers):
    others = [
        Collator(tokenizers[1], TOKENS, VIEWS),
        Collator(tokenizers[0], {**TOKENS, "sax": 5}, VIEWS),
        Collator(tokenizers[0], TOKENS, {**VIEWS, "sax": 3}),
        Collator(tokenizers[0], TOKENS, VIEWS, max_length=99),
        Collator(tokenizers[0], TOKENS, VIEWS, read_out_tokens=3),
        None,
    ]
    keys = {replace(run, collator=other).digest("phantom-0-00000") for other in others}
    assert len(keys | {run.digest("phantom-0-00000")}) == len(others) + 1


def test_another_mixture_is_another_key(run):
    others = [
        None,
        Mixture({"sequence": SequenceTask(), "level": LevelTask()}),
        Mixture({"sequence": SequenceTask()}, languages=["zh"]),
        Mixture({"sequence": SequenceTask()}, context=["sex"]),
    ]
    keys = {replace(run, mixture=other).digest("phantom-0-00000") for other in others}
    assert len(keys | {run.digest("phantom-0-00000")}) == len(others) + 1


def test_a_result_of_another_tokenizer_is_counted_anew(run, tokenizers):
    (first,) = run.run()
    (second,) = replace(run, collator=Collator(tokenizers[1], TOKENS, VIEWS)).run()
    assert first.longest_row != second.longest_row
