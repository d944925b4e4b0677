"""Masks are read as they are unless something else is asked for, and then each means does its own."""

from dataclasses import replace

import numpy as np
import torch

from cmrvlm import inference
from cmrvlm.inference import answer_batch
from cmrvlm.models.mask_reading import MaskReading
from cmrvlm.tasks.base import Case, Instruction, MaskTarget
from cmrvlm.tasks.segmentation import SegmentTask
from cmrvlm.text.tokens import SEGMENT


def asked(as_box):
    return Instruction(
        "s", "segment_lv", "en", "", "", Case((), mask=MaskTarget("sax", "lv", (1,), (0,), ("ed",), as_box))
    )


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
        target = replace(asked(False).case.mask, structure=structure)
        one = replace(asked(False), case=Case((), mask=target))
        for way in ("largest", "fill"):
            tidied = MaskReading(**{way: True}).mask(logits(), one)
            assert np.array_equal(tidied, plain) != (way in changes), (structure, way)
    assert str(MaskReading()) == "as they are"
    assert str(MaskReading(flips=True, fill=True)) == "flips, fill"


def test_a_mirrored_study_has_the_mirrored_mask(parts):
    """With flips, mirroring the images mirrors the logits: both are averaged either way."""
    data, _, model, collator = parts
    study = data.cache.load(data.split["train"][0])
    own = [one for one in data.mixture.all(study) if one.task == "segment_lv"]
    batch = collator([(study, own)])
    masks = {name: answer_batch(model, collator, batch, 20, reading=MaskReading(flips=flips))[0].mask
             for name, flips in (("plain", False), ("flipped", True))}  # fmt: skip
    assert masks["plain"].shape == masks["flipped"].shape
    hidden = torch.randn(1, batch.rows.ids.shape[1], model.llm.width)
    turned = {
        name: [type(one)(one.images.flip(-1), one.owners) for one in group] for name, group in batch.media.items()
    }
    reading = MaskReading(flips=True)
    with torch.no_grad():
        one, two = (reading.logits(model, media, model.encode(media), hidden, batch.rows, own, [0])[0]
                    for media in (batch.media, turned))  # fmt: skip
    assert (one - two.flip(-1)).abs().max() < 1e-4


def test_a_mask_without_a_voxel_is_answered_as_absence(parts, monkeypatch):
    """Although the words say that it is there; the cavity cannot be absent and keeps its one sentence."""
    data, _, model, collator = parts
    study = data.cache.load(data.split["train"][0])
    tasks = [SegmentTask(one, "sax") for one in ("scar", "no_reflow", "lv")]
    asked = [task.on_all_frames(study, language) for task in tasks for language in ("en", "zh")]
    batch = collator([(study, asked)])
    rule = inference._rule
    monkeypatch.setattr(inference, "_rule",
                        lambda collator, one, end: rule(collator, replace(one, allowed=one.allowed[:1]), end))  # fmt: skip
    monkeypatch.setattr(MaskReading, "mask", lambda _self, logits, _asked: np.ones(logits.shape, dtype=bool))
    assert all(SEGMENT in one.text for one in answer_batch(model, collator, batch, 40))
    monkeypatch.setattr(MaskReading, "mask", lambda _self, logits, _asked: np.zeros(logits.shape, dtype=bool))
    for answer in answer_batch(model, collator, batch, 40):
        if answer.instruction.case.mask.structure == "lv":
            assert answer.text == answer.instruction.allowed[0]
            assert answer.mask is not None
        else:
            assert answer.text == answer.instruction.allowed[1]
            assert answer.mask is None
