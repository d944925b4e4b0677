"""Masks are read as they are unless something else is asked for, and then each means does its own."""

from dataclasses import replace

import numpy as np
import torch
from scipy import ndimage

from cmrvlm.encoders import base
from cmrvlm.inference import answering
from cmrvlm.inference.answering import answer_batch, answer_questions
from cmrvlm.inference.mask_reading import MaskReading
from cmrvlm.instructions.question import Region
from cmrvlm.instructions.tokens import SEGMENT
from cmrvlm.models.features import ReadRows
from cmrvlm.models.mask_decoder import LanguageQuery, MaskDecoder
from cmrvlm.tasks.segmentation import SegmentTask, absent_sentence
from tests.records import an_instruction


def asked(as_box):
    return an_instruction(region=Region("sax", "lv", (1,), (0,), ("ed",), as_box))


def logits():
    """A ring with a hole, and a speck far away, in the first of two frames; nothing in the second."""
    inside = torch.full((2, 2, 20, 20), -1.0)
    inside[:, 0, 4:10, 4:10] = 1.0
    inside[:, 0, 6:8, 6:8] = -1.0
    inside[0, 0, 17, 17] = 1.0
    return inside


def test_each_means_does_its_own():
    plain = MaskReading().mask(logits(), asked(False))
    assert np.array_equal(plain, logits().numpy() > 0)
    largest = MaskReading(largest=True).mask(logits(), asked(False))
    assert not largest[0, 0, 17, 17]
    assert not largest[0, 0, 6, 6]
    assert largest.sum() == plain.sum() - 1
    filled = MaskReading(fill=True).mask(logits(), asked(False))
    assert filled[:, 0, 6:8, 6:8].all()
    assert filled.sum() == plain.sum() + 8
    assert not MaskReading(largest=True, fill=True).mask(logits(), asked(False))[:, 1].any()
    box = MaskReading(largest=True, fill=True).mask(logits(), asked(True))
    assert np.array_equal(box, plain)
    for structure, changes in (
        ("myo", {"largest"}),
        ("rv", {"largest", "fill"}),
        ("scar", set()),
        ("no_reflow", set()),
    ):
        target = replace(asked(False).region, structure=structure)
        one = replace(asked(False), region=target)
        for way in ("largest", "fill"):
            tidied = MaskReading(**{way: True}).mask(logits(), one)
            assert np.array_equal(tidied, plain) != (way in changes), (structure, way)
    assert str(MaskReading()) == "as they are"
    assert str(MaskReading(flips=True, fill=True)) == "flips, fill"


def test_parts_and_holes_are_those_of_scipy():
    """Many small parts that meet in edges and corners; the largest as SciPy counts it, holes as it fills them."""
    noise = (
        ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(3, 4, 40, 40)), (0, 0, 1, 1))
        - 0.1
    )
    inside = torch.from_numpy(noise)
    largest = MaskReading(largest=True).mask(inside, asked(False))
    filled = MaskReading(fill=True).mask(inside, asked(False))
    for frame in range(4):
        parts, count = ndimage.label(noise[:, frame] > 0)
        sizes = np.bincount(parts.ravel())[1:]
        assert count > 5
        assert (sizes == sizes.max()).sum() == 1
        assert np.array_equal(largest[:, frame], parts == 1 + sizes.argmax())
        for picture, own in zip(noise[:, frame], filled[:, frame], strict=True):
            assert np.array_equal(own, ndimage.binary_fill_holes(picture > 0))
    assert filled.sum() > (noise > 0).sum()


def test_a_mirrored_study_has_the_mirrored_mask(untrained):
    """With flips, mirroring the images mirrors the logits: both are averaged either way."""
    data = untrained.data
    model = untrained.model
    collator = untrained.collator
    study = data.cache.load(data.split["train"][0])
    own = [one for one in data.mixture.all(study) if one.task == "segment_lv"]
    batch = collator([(study, own)])
    masks = {
        name: answer_batch(model, collator, batch, 20, reading=MaskReading(flips=flips))[0].mask
        for name, flips in (("plain", False), ("flipped", True))
    }
    assert masks["plain"].shape == masks["flipped"].shape
    hidden = torch.randn(1, batch.rows.ids.shape[1], model.llm.width)
    turned = {
        name: [type(one)(one.images.flip(-1), one.owners) for one in group]
        for name, group in batch.media.items()
    }
    reading = MaskReading(flips=True)
    with torch.no_grad():
        one, two = (
            reading.logits(
                model, media, ReadRows(model.encode(media), hidden, batch.rows, own, [0])
            )[0]
            for media in (batch.media, turned)
        )
    assert (one - two.flip(-1)).abs().max() < 1e-4


def test_what_is_nowhere_is_said_to_be_absent_and_has_an_empty_mask(untrained, monkeypatch):
    """Whatever the words said, and of every structure: in words alone, or for want of a voxel."""
    data = untrained.data
    model = untrained.model
    collator = untrained.collator
    study = data.cache.load(data.split["train"][0])
    tasks = [SegmentTask(one, "sax") for one in ("scar", "no_reflow", "lv")]
    asked = [
        question
        for task in tasks
        for language in ("en", "zh")
        for question in task.ask(study, language)
    ]
    batch = collator.questions([(study, asked)])
    shape, rule = study.series["sax"].image.shape, answering._rule

    def answers(chosen, filled):
        monkeypatch.setattr(
            answering,
            "_rule",
            lambda collator, one: rule(collator, replace(one, allowed=one.allowed[chosen:][:1])),
        )
        monkeypatch.setattr(
            MaskReading, "mask", lambda _self, logits, _asked: np.full(logits.shape, filled)
        )
        return answer_questions(model, collator, batch, 40)

    for one in answers(0, True):
        assert SEGMENT in one.text
        assert one.mask.shape == shape
        assert one.mask.all()
    for one in answers(0, False):
        target = one.question.region
        assert one.text == absent_sentence(target.structure, one.question.language)
        assert one.mask.shape == shape
        assert not one.mask.any()
    monkeypatch.setattr(MaskReading, "logits", lambda *_: {})  # no mark was said
    for one in answers(-1, True):
        if one.question.region.structure == "lv":
            assert one.mask is None  # neither a mask nor a word of absence
        else:
            assert one.mask.shape == shape
            assert not one.mask.any()


def test_closed_answers_are_whole_however_short_answers_are_to_be(untrained):
    data = untrained.data
    model = untrained.model
    collator = untrained.collator
    study = data.cache.load(data.split["train"][0])
    asked = [
        one for one in data.mixture.all(study) if one.allowed or one.task in ("report", "caption")
    ]
    assert {bool(one.allowed) for one in asked} == {True, False}
    for one in answer_batch(model, collator, collator([(study, asked)]), 2):
        if one.instruction.allowed:
            assert one.text in one.instruction.allowed
            assert not one.truncated
        else:
            assert len(collator.tokenizer.encode(one.text, add_special_tokens=False)) <= 2


def without_bias(query, marks, words, forward=LanguageQuery.forward):
    """Drop the bias of an untrained network, with which all its masks may be full."""
    weights = forward(query, marks, words)
    weights[..., -1] = 0
    return weights


def test_masks_asked_together_are_those_asked_one_by_one(untrained, monkeypatch):
    data = untrained.data
    model = untrained.model
    collator = untrained.collator
    study = data.cache.load(data.split["train"][0])
    asked = [
        question for one in ("lv", "myo", "rv") for question in SegmentTask(one).ask(study, "en")
    ]
    monkeypatch.setattr(LanguageQuery, "forward", without_bias)
    together = answer_questions(model, collator, collator.questions([(study, asked)]), 40)
    for one, other in zip(together, asked, strict=True):
        [alone] = answer_questions(model, collator, collator.questions([(study, [other])]), 40)
        assert alone.text == one.text
        assert np.array_equal(alone.mask, one.mask)
    assert not np.array_equal(together[0].mask, together[2].mask)


def test_masks_of_a_cycle_are_decoded_some_frames_at_a_time(untrained, monkeypatch):
    """The same logits, and no more pictures at once than are allowed, but for those of one frame."""
    data = untrained.data
    model = untrained.model
    collator = untrained.collator
    studies = [data.cache.load(one) for one in data.split["train"][:2]]
    asked = [
        (
            study,
            [question for one in ("lv", "rv") for question in SegmentTask(one).ask(study, "en")],
        )
        for study in studies
    ]
    batch = collator.questions(asked)
    texts = [question.allowed[0] for question in batch.questions]
    rows = collator.rows(batch.questions, batch.owners, texts)
    hidden = torch.randn(4, rows.ids.shape[1], model.llm.width)
    slices, frames, height, width = studies[0].series["sax"].image.shape
    decode, sizes = MaskDecoder.pixels, []

    def pixels(self, pyramid):
        sizes.append(len(pyramid[0]) * pyramid[0].shape[2] * pyramid[0].shape[3])
        return decode(self, pyramid)

    def logits(at_once):
        monkeypatch.setattr(base, "PIXELS_AT_ONCE", at_once * height * width)
        sizes.clear()
        with torch.no_grad():
            features = model.encode(batch.media)
            found = model.mask_logits(
                ReadRows(features, hidden, rows, batch.questions, [0, 0, 1, 1])
            )
        return torch.stack([found[row][0] for row in range(4)])

    monkeypatch.setattr(MaskDecoder, "pixels", pixels)
    whole = logits(1000)
    assert sizes == [2 * slices * frames]
    parted = logits(4 * slices + 1)
    assert max(sizes) == 4 * slices
    assert sum(sizes) == 2 * slices * frames
    assert whole.shape == (4, slices, frames, height, width)
    assert (whole - parted).abs().max() < 1e-4
