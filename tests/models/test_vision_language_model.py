from dataclasses import replace

import pytest
import torch

from cmrvlm.errors import CmrvlmError
from cmrvlm.inference.answering import answer_batch
from cmrvlm.instructions.question import View
from cmrvlm.instructions.read_outs import READ_OUTS, measurements_of
from cmrvlm.instructions.rows import split_by_length
from cmrvlm.models.features import ReadRows
from cmrvlm.reports.numbers import numbers_stated
from tests.records import an_instruction


@pytest.fixture(scope="module")
def samples(untrained):
    data = untrained.data
    collator = untrained.collator
    studies = [data.cache.load(s) for s in data.split["train"][:3]]
    without_lge = studies[1].with_series({k: v for k, v in studies[1].series.items() if k != "lge"})
    only_lge = studies[2].with_series({"lge": studies[2].series["lge"]})
    chosen = [studies[0], without_lge, only_lge]
    return [(one, data.mixture.all(one)) for one in chosen], collator


@torch.no_grad()
def forward(model, batch):
    owners = batch.questions().owners
    reading = model(batch.media, batch.rows, batch.instructions, owners)
    features = reading.features
    logits, _ = model.answer_logits(reading.hidden, batch.rows)
    masks = model.mask_logits(reading)
    assert all(len(own) == 1 for own in masks.values())  # in evaluation only the finest scale
    masks = {row: own[0] for row, own in masks.items()}
    shown = [
        (study, [name for name in batch.media if (study, name) in features])
        for study in range(len(batch.study_ids))
    ]
    return logits, masks, torch.cat(list(model.read_outs(features, shown).values()), dim=1)


def test_a_study_in_company_equals_the_study_alone(untrained, samples):
    """One with everything, one without LGE, one with LGE only: logits of each are those it has alone."""
    model = untrained.model
    studies, collator = samples
    together = forward(model, collator(studies))
    alone = [forward(model, collator([one])) for one in studies]
    assert (together[0] - torch.cat([a[0] for a in alone])).abs().max() < 1e-5
    assert (together[2] - torch.cat([a[2] for a in alone])).abs().max() < 1e-5
    starts = [sum(len(asked) for _, asked in studies[:index]) for index in range(len(studies))]
    masks = {
        start + row: mask
        for start, a in zip(starts, alone, strict=True)
        for row, mask in a[1].items()
    }
    assert masks.keys() == together[1].keys()
    assert masks
    for row, mask in together[1].items():
        assert (mask - masks[row]).abs().max() < 1e-4


@torch.no_grad()
def test_words_tell_structures_apart_where_hidden_states_are_all_alike(untrained, samples):
    """In every study each structure has a mask of its own, in either language, and the same in company."""
    model = untrained.model
    studies, collator = samples
    batch = collator(studies)
    features = model.encode(batch.media)
    alike = torch.ones(*batch.rows.ids.shape, model.llm.width)
    owners = batch.questions().owners
    masks = model.mask_logits(ReadRows(features, alike, batch.rows, batch.instructions, owners))
    asked = {
        row: batch.instructions[row] for row in masks if not batch.instructions[row].region.as_box
    }
    pairs = [
        (a, b)
        for a in asked
        for b in asked
        if a < b
        and asked[a].study_id == asked[b].study_id
        and asked[a].region.frames == asked[b].region.frames
    ]
    assert pairs
    for a, b in pairs:
        same = (asked[a].region.structure, asked[a].language) == (
            asked[b].region.structure,
            asked[b].language,
        )
        assert torch.equal(masks[a][0], masks[b][0]) == same


def test_absent_sequences_are_not_in_the_batch(samples):
    studies, collator = samples
    batch = collator(studies)
    assert sorted(batch.media["lge"][0].owners.tolist()) == [0, 2]
    assert sorted(batch.media["sax"][0].owners.tolist()) == [0, 1]
    assert all(stack.images.abs().sum() > 0 for stacks in batch.media.values() for stack in stacks)


def test_studies_of_different_size_share_a_batch(untrained, samples):
    model = untrained.model
    collator = untrained.collator
    (one, asked), (two, asked_two) = samples[0][0], samples[0][1]
    sax = two.series["sax"]
    shorter = replace(sax, image=sax.image[:2], mask=sax.mask[:2], levels=sax.levels[:2], drawn=())
    two = two.with_series({"sax": shorter})
    asked_two = [i for i in untrained.data.mixture.all(two)]
    together = forward(model, collator([(one, asked), (two, asked_two)]))
    alone = forward(model, collator([(two, asked_two)]))
    assert (together[0][-len(alone[0]) :] - alone[0]).abs().max() < 1e-5


def test_images_change_the_answer(untrained, samples):
    model = untrained.model
    collator = untrained.collator
    study, asked = samples[0][0]
    other = study.with_series(
        {
            name: replace(series, image=series.image[..., ::-1].copy(), drawn=())
            for name, series in study.series.items()
        }
    )
    one, two = (forward(model, collator([(s, asked)])) for s in (study, other))
    assert (one[0] - two[0]).abs().max() > 1e-4
    assert (one[2] - two[2]).abs().max() > 1e-5


def test_answers_come_for_every_instruction_in_order(untrained, samples):
    model = untrained.model
    studies, collator = samples
    batch = collator(studies)
    answers = answer_batch(model, collator, batch, 6)
    assert [a.instruction for a in answers] == batch.instructions
    for answer in answers:
        asks_mask = answer.instruction.region is not None
        assert (answer.truth_mask is not None) == asks_mask
        whole = any(view.whole for view in answer.instruction.views)
        assert set(answer.read_outs) == (set(READ_OUTS) if whole else set())
        for name, values in answer.read_outs.items():
            assert values.shape == (READ_OUTS[name].size,)
            assert name == "measurements" or ((values >= 0) & (values <= 1)).all()


def test_blind_questions_have_no_images_and_no_numbers(untrained, samples):
    model = untrained.model
    studies, collator = samples
    batch = collator(studies, blind=True)
    assert batch.media == {}
    answers = answer_batch(model, collator, batch, 4)
    assert len(answers) == len(batch.instructions)
    assert all(not a.read_outs and a.mask is None for a in answers)


def test_several_structures_decode_their_pixels_once(untrained, samples, monkeypatch):
    model = untrained.model
    studies, collator = samples
    decoder = model.mask_head["sax"]
    calls = []
    whole = type(decoder).pixels
    monkeypatch.setattr(
        type(decoder),
        "pixels",
        lambda self, pyramid: calls.append(pyramid[0].shape[0]) or whole(self, pyramid),
    )
    _, masks, _ = forward(model, collator(studies))
    assert len(masks) == 12  # three structures of two studies, as masks and as boxes
    assert calls == [2, 2]  # at ED and ES for masks, at ED for boxes


def test_unknown_sequence_is_named(untrained):
    with pytest.raises(CmrvlmError, match="perfusion"):
        untrained.model.encoder("perfusion")


def test_special_tokens_cannot_be_smuggled_in(untrained, samples):
    study = samples[0][0][0]
    bad = an_instruction(
        study_id=study.study_id, prompt="What is <SEG> here?", views=(View("sax"),)
    )
    with pytest.raises(CmrvlmError, match="special token"):
        untrained.collator.prompt_ids(bad)


def test_too_long_a_row_is_an_error_with_its_lengths(untrained, samples):
    collator = type(untrained.collator)(
        untrained.tokenizer,
        untrained.collator.series_tokens,
        untrained.collator.view_tokens,
        max_length=64,
    )
    with pytest.raises(CmrvlmError, match="the model takes 64"):
        collator(samples[0][:1])


def test_rows_are_split_where_padding_costs_least():
    lengths = torch.tensor([30, 160, 31, 150, 29])
    short, long = (group.tolist() for group in split_by_length(lengths))
    assert sorted(short) == [0, 2, 4]
    assert sorted(long) == [1, 3]
    saved = len(short) * (max(lengths[long]) - max(lengths[short]))
    assert len(split_by_length(lengths, int(saved))) == 2
    assert [sorted(group.tolist()) for group in split_by_length(lengths, int(saved) + 1)] == [
        list(range(len(lengths)))
    ]
    assert [group.tolist() for group in split_by_length(torch.tensor([7, 7]))] == [[0, 1]]
    assert [group.tolist() for group in split_by_length(torch.tensor([5]))] == [[0]]


@torch.no_grad()
def test_numbers_in_a_text_are_those_of_the_read_out(untrained, samples, monkeypatch):
    """Whatever a model writes, a mark becomes the number of the regression head for the series shown."""
    tokenizer = untrained.tokenizer
    model = untrained.model
    studies, collator = samples
    text = "LVEDV <lvedv_ml> ml, LVESV <lvesv_ml> ml, LVEF <lvef_percent> %."
    ids = tokenizer.encode(text, add_special_tokens=False)
    monkeypatch.setattr(model, "generate", lambda tokens, prompts, *rest: [ids for _ in prompts])
    batch = collator(studies)
    stacks = {int(owner) for stack in batch.media["sax"] for owner in stack.owners}
    for owner, answer in zip(
        batch.owners.tolist(), answer_batch(model, collator, batch, 50), strict=True
    ):
        stated = numbers_stated(answer.text)
        if not answer.read_outs or owner not in stacks:  # no volume without a stack of slices
            assert answer.text == text.replace(
                "<lvedv_ml>", said := UNKNOWN[answer.instruction.language]
            ).replace("<lvesv_ml>", said).replace("<lvef_percent>", said)
            continue
        expected = measurements_of(answer.read_outs["measurements"])
        for name, value in stated.items():
            assert value == pytest.approx(expected[name], abs=0.5)
        assert set(stated) == {"lvedv_ml", "lvesv_ml", "lvef_percent"}


UNKNOWN = {"en": "unknown", "zh": "未知"}


def test_the_end_of_an_answer_is_known_from_a_cut(untrained, samples):
    studies, collator = samples
    batch = collator(studies[:1])
    assert any(a.truncated for a in answer_batch(untrained.model, collator, batch, 2))
