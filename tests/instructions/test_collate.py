import torch


def batch_of(untrained, count=2):
    data = untrained.data
    collator = untrained.collator
    studies = [data.cache.load(s) for s in data.split["train"][:count]]
    return collator([(one, data.mixture.all(one)) for one in studies])


def test_rows_hold_prompt_answer_and_end(untrained):
    tokenizer = untrained.tokenizer
    collator = untrained.collator
    batch = batch_of(untrained)
    for row, instruction in enumerate(batch.instructions):
        length, start = int(batch.rows.lengths[row]), int(batch.rows.prompt_lengths[row])
        ids = batch.rows.ids[row, :length].tolist()
        assert tokenizer.decode(ids[start:-1]) == instruction.answer
        assert ids[-1] == tokenizer.eos_token_id
        assert ids[start - 1] == collator.answer_id
        places = collator.image_places(instruction.views)
        assert ids.count(collator.image_id) == places
        assert (places > 0) == bool(instruction.views)
        assert (batch.rows.ids[row, length:] == tokenizer.pad_token_id).all()


def test_end_is_learned_and_padding_and_prompt_are_not(untrained):
    tokenizer = untrained.tokenizer
    model = untrained.model
    batch = batch_of(untrained)
    hidden = torch.randn(*batch.rows.ids.shape, model.llm.width)
    logits, labels = model.answer_logits(hidden, batch.rows)
    answers = (batch.rows.lengths - batch.rows.prompt_lengths).sum()
    assert len(logits) == len(labels) == answers
    assert (labels >= 0).all()
    assert (labels == tokenizer.eos_token_id).sum() == len(batch.instructions)
    assert not (labels == tokenizer.pad_token_id).any()


def test_masks_are_those_of_the_frames_asked(untrained):
    data = untrained.data
    batch = batch_of(untrained)
    for row, (instruction, owner) in enumerate(
        zip(batch.instructions, batch.questions().owners, strict=True)
    ):
        target = instruction.region
        if target is None:
            assert batch.masks[row] is None
            continue
        study = data.cache.load(batch.study_ids[owner])
        expected = study.series[target.sequence].mask[:, list(target.frames)]
        assert (batch.masks[row].numpy() == expected).all()


def test_batch_moves_as_a_whole(untrained):
    moved = batch_of(untrained).to("cpu")
    assert moved.rows.ids.device.type == "cpu"
    assert {stack.images.ndim for stacks in moved.media.values() for stack in stacks} == {6}
