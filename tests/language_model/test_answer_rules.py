"""Rules for answers: reports can be read back, closed answers are given whole."""

import pytest
import torch

from cmrvlm.language_model.answer_rules import OneOf, Outline
from cmrvlm.language_model.tokenizer import train_tokenizer
from cmrvlm.reports.writer import CUT, SECTION_NAMES, all_headings, headings, split_sections

TEXTS = [
    "Structure: the left ventricle is dilated. Function: reduced. LGE: none. Other: none. Impression: DCM.",
    "结构：左心室扩大。功能：减低。延迟强化：无。其他：无。结论：扩张型心肌病。",
]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS, vocab_size=600)


def outline(tokenizer, language):
    return Outline(
        headings(language),
        all_headings(),
        lambda text: tokenizer.encode(text, add_special_tokens=False),
        tokenizer.decode,
        tokenizer.eos_token_id,
        CUT,
    )


def written(tokenizer, rule, wishes, most):
    """What comes of wishes for the next token: (step, said) to logits."""
    said = []
    for step in range(most):
        logits = rule.narrow(wishes(step, said), most - step)
        while not rule.accepts(token := int(logits.argmax())):
            logits[token] = float("-inf")
        rule.add(token)
        if token == tokenizer.eos_token_id:
            return tokenizer.decode(said)
        said.append(token)
    raise AssertionError(f"no end: {tokenizer.decode(said)}")


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_report_with_all_headings_is_left_as_it_is(tokenizer, language):
    text = TEXTS[language == "zh"]
    ids = [*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id]

    def wishes(step, said):
        logits = torch.zeros(len(tokenizer))
        logits[ids[len(said)]] = 5.0
        return logits

    assert written(tokenizer, outline(tokenizer, language), wishes, 200) == text


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("seed", range(10))
def test_every_section_is_there_once_and_in_order(tokenizer, language, seed):
    generator = torch.Generator().manual_seed(seed)
    likely = tokenizer.encode("".join(all_headings()) + "".join(TEXTS), add_special_tokens=False)

    def wishes(step, said):
        logits = torch.randn(len(tokenizer), generator=generator)
        logits[likely] += 3.0  # headings of any section and language, again and again
        logits[tokenizer.eos_token_id] += 4.0 * (seed % 2)
        return logits

    text = written(tokenizer, outline(tokenizer, language), wishes, 250)
    places = [text.find(one.strip()) for one in headings(language)]
    assert places == sorted(places)
    assert places[0] == 0
    for one in all_headings():
        assert text.count(one) == (one in {own.strip() for own in headings(language)}), one
    read = split_sections(text)
    unfinished = [name for name in SECTION_NAMES if name not in read]
    assert len(unfinished) == text.count(CUT)


def test_a_section_that_does_not_end_is_closed_and_not_read(tokenizer):
    dull = tokenizer.encode(" the", add_special_tokens=False)[0]

    def wishes(step, said):
        logits = torch.zeros(len(tokenizer))
        logits[dull] = 1.0
        return logits

    text = written(tokenizer, outline(tokenizer, "en"), wishes, 120)
    assert text.count(CUT) == len(SECTION_NAMES)
    assert split_sections(text) == {}


def test_one_of_the_listed_answers_is_given_whole():
    rule = OneOf([[1, 2, 9], [1, 3, 9], [4, 9]])
    kept = rule.narrow(torch.zeros(10), 5)
    assert kept.isfinite().nonzero()[:, 0].tolist() == [1, 4]
    assert not rule.accepts(2)
    rule.add(1)
    assert rule.accepts(3)
    assert not rule.accepts(9)
    rule.add(3)
    assert rule.narrow(torch.zeros(10), 3).isfinite().nonzero()[:, 0].tolist() == [9]
