import shutil

import pytest
import torch
from torch.nn.attention.flex_attention import create_mask

from cmrvlm.errors import CmrvlmError
from cmrvlm.language_model.answer_rules import OneOf
from cmrvlm.language_model.attention_mask import Layout, attention_mask, mask_for_implementation
from cmrvlm.language_model.beam_search import beam_search
from cmrvlm.language_model.decoding import Beams, Greedy, Sampled, Sampling, generate
from cmrvlm.language_model.fusion import fill_image_places
from cmrvlm.language_model.network import tiny_language_model
from cmrvlm.language_model.prompts import embed_prompts


def tiny(**changes):
    torch.manual_seed(0)
    settings = {
        "vocab_size": 40,
        "hidden_size": 32,
        "layers": 2,
        "heads": 4,
        "intermediate_size": 48,
    }
    return tiny_language_model(**settings | changes).eval()


IMAGE = 38


def answers_of(model, prompts, images, *arguments, groups=None):
    """Answers to prompts whose first tokens stand for images."""
    tokens = [
        model.embed(torch.tensor(own[1:count], dtype=torch.long))
        for own, count in zip(prompts, images, strict=True)
    ]
    ids = [
        [own[0], *[IMAGE] * (count - 1), *own[count:]]
        for own, count in zip(prompts, images, strict=True)
    ]
    asked = embed_prompts(
        model, IMAGE, tokens, ids, list(range(len(ids))) if groups is None else groups
    )
    return generate(model, asked, *arguments)


def layout_of(valid, images=1, prompts=None):
    """Layout with the same lengths in each row; the prompt is all there is by default."""
    counts = valid.sum(dim=1)
    return Layout.of_rows(
        valid, torch.full_like(counts, images), counts if prompts is None else torch.tensor(prompts)
    )


def test_attention_masks_by_hand():
    """Two images, two tokens of the question, one of the answer, padding."""
    valid = torch.tensor([[True, True, True, True, True, False]])
    layout = layout_of(valid, 2, [4])
    assert layout.blocks.tolist() == [[0, 0, 1, 1, 2, 2]]
    prefix = attention_mask(layout, "prefix")[0, 0].int().tolist()
    assert prefix == [
        [1, 1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 1, 1, 1, 0],
        [0, 0, 0, 0, 0, 1],
    ]
    causal = attention_mask(layout, "causal")[0, 0].int().tolist()
    assert causal == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 1, 1, 1, 0],
        [0, 0, 0, 0, 0, 1],
    ]


def test_positions_skip_padding():
    valid = torch.tensor([[False, False, True, True], [True, True, True, False]])
    assert layout_of(valid).positions.tolist() == [[0, 0, 0, 1], [0, 1, 2, 2]]


@pytest.mark.parametrize("family", ["qwen3", "llama"])
@pytest.mark.parametrize("attention", ["prefix", "causal"])
@torch.no_grad()
def test_sdpa_and_eager_give_the_same_hidden_states(family, attention):
    one, two = (
        tiny(family=family, attention=attention, attention_implementation=i)
        for i in ("sdpa", "eager")
    )
    two.load_state_dict(one.state_dict())
    ids, valid, layout = some_layout()
    a, b = (m.hidden(m.embed(ids), layout)[valid] for m in (one, two))
    assert (a - b).abs().max() < 1e-5


def some_layout():
    ids = torch.randint(0, 40, (3, 9))
    valid = torch.arange(9)[None] < torch.tensor([9, 6, 4])[:, None]
    return ids, valid, layout_of(valid, 2, [5, 3, 2])


@pytest.mark.parametrize("attention", ["prefix", "causal"])
def test_flex_attention_gets_the_same_mask(attention):
    mask = attention_mask(some_layout()[2], attention)
    blocks = mask_for_implementation(mask, "flex_attention", torch.float32)
    assert blocks.shape == (*mask.shape[:1], 1, *mask.shape[2:])
    assert torch.equal(create_mask(blocks.mask_mod, 3, 1, 9, 9, device="cpu"), mask)


@pytest.mark.slow  # compiles its kernel
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a compiler")
@torch.no_grad()
def test_flex_attention_gives_the_same_hidden_states():
    one, two = (
        tiny(hidden_size=64, attention_implementation=name) for name in ("sdpa", "flex_attention")
    )
    two.load_state_dict(one.state_dict())
    ids, valid, layout = some_layout()
    a, b = (m.hidden(m.embed(ids), layout)[valid] for m in (one, two))
    assert (a - b).abs().max() < 1e-5


def test_other_implementations_are_refused_by_name():
    with pytest.raises(CmrvlmError, match=r"llm\.network\.attention_implementation.*flash_att"):
        mask_for_implementation(
            torch.ones(1, 1, 2, 2, dtype=torch.bool), "flash_attention_2", torch.float32
        )


@torch.no_grad()
def test_images_and_questions_attend_in_both_directions_and_answers_back():
    model = tiny()
    ids = torch.randint(0, 40, (1, 9))  # three images, three of the question, three of the answer
    layout = layout_of(torch.ones(1, 9, dtype=torch.bool), 3, [6])

    def changed_by(index):
        other = ids.clone()
        other[0, index] = (ids[0, index] + 1) % 40
        difference = model.hidden(model.embed(other), layout) - model.hidden(
            model.embed(ids), layout
        )
        return (difference[0].abs().max(dim=-1).values > 1e-5).int().tolist()

    assert changed_by(2) == [1, 1, 1, 1, 1, 1, 1, 1, 1]
    assert changed_by(5) == [0, 0, 0, 1, 1, 1, 1, 1, 1]
    assert changed_by(7) == [0, 0, 0, 0, 0, 0, 0, 1, 1]


PROMPTS = [
    [1, 2, 3],
    [5, 6, 7, 8, 9, 10, 11, 12, 13, 14],
    [20, 4],
    [5, 6, 7, 8, 21],
    [5, 6, 7, 8, 22, 23, 24],
]
IMAGES = [2, 4, 1, 4, 4]  # tokens of begin and images
GROUPS = ["a", "b", "c", "b", "b"]


@pytest.mark.parametrize("family", ["qwen3", "llama"])
@pytest.mark.parametrize("attention", ["prefix", "causal"])
def test_answers_depend_neither_on_neighbours_nor_on_shared_images(attention, family):
    model = tiny(attention=attention, family=family)
    shared = answers_of(model, PROMPTS, IMAGES, 39, 12, groups=GROUPS)
    assert answers_of(model, PROMPTS, IMAGES, 39, 12) == shared
    for row, answer in enumerate(shared):
        assert answers_of(model, PROMPTS[row : row + 1], IMAGES[row : row + 1], 39, 12) == [answer]
    assert len({tuple(answer) for answer in shared}) > 1


@pytest.mark.parametrize("attention", ["prefix", "causal"])
def test_cached_decoding_equals_full_passes(attention):
    model = tiny(attention=attention)
    for prompt, images, answer in zip(
        PROMPTS, IMAGES, answers_of(model, PROMPTS, IMAGES, 39, 8, groups=GROUPS), strict=True
    ):
        tokens = list(prompt)
        for expected in answer:
            whole = torch.tensor([tokens])
            layout = layout_of(torch.ones_like(whole, dtype=torch.bool), images, [len(prompt)])
            hidden = model.hidden(model.embed(whole), layout)
            assert int(model.logits(hidden[0, -1]).argmax()) == expected
            tokens.append(expected)


def test_length_limit_counts_new_tokens_and_rows_end_alone():
    model = tiny()
    prompts, images = [[3, 1, 4], [1, 5, 9, 2, 6]], [1, 1]
    free = answers_of(model, prompts, images, -1, 5)
    assert [len(answer) for answer in free] == [5, 5]
    stop = free[0][2]
    stopped = answers_of(model, prompts, images, stop, 5)
    assert stopped[0] == free[0][: free[0].index(stop)]
    assert stopped[1] == (free[1][: free[1].index(stop)] if stop in free[1] else free[1])


def rules_of(allowed):
    return [OneOf(own) if own else None for own in allowed]


def test_an_answer_is_the_likeliest_path_through_what_is_allowed():
    """Token by token; rows without a list stay free, and neighbours change nothing."""
    model = tiny()
    prompts, images = [[3, 1, 4], [1, 5, 9, 2, 6], [7, 7]], [1, 1, 1]
    free = answers_of(model, prompts, images, 39, 6)
    allowed = [[[5, 6, 39], [5, 7, 8, 39], [11, 39]], [], [[20, 21, 39]]]
    found = answers_of(model, prompts, images, 39, 6, rules_of(allowed))
    assert [*found[0], 39] in allowed[0]
    assert found[1] == free[1]
    assert found[2] == [20, 21]
    assert answers_of(model, prompts[:1], images[:1], 39, 6, rules_of(allowed[:1])) == found[:1]
    whole = torch.tensor(prompts[:1])
    logits = model.logits(
        model.hidden(model.embed(whole), layout_of(torch.ones_like(whole, dtype=torch.bool)))[0, -1]
    )
    assert found[0][0] == (5 if logits[5] > logits[11] else 11)


def one_prompt(model, prompt):
    return embed_prompts(
        model, IMAGE, [model.embed(torch.zeros(0, dtype=torch.long))], [prompt], [0]
    )


def test_sampling_follows_the_probabilities_and_leaves_out_the_tail():
    logits = torch.tensor([0.5, 0.3, 0.2]).log().expand(6000, 3)
    shares = torch.bincount(Sampling(1.0, 1.0)(logits), minlength=3) / 6000
    assert torch.allclose(shares, torch.tensor([0.5, 0.3, 0.2]), atol=0.03)
    assert set(Sampling(1.0, 0.6)(logits).tolist()) == {0, 1}
    assert set(Sampling(1.0, 0.5)(logits).tolist()) == {0}
    cold = torch.bincount(Sampling(0.5, 1.0)(logits), minlength=3) / 6000
    expected = torch.tensor([0.25, 0.09, 0.04])
    assert torch.allclose(cold, expected / expected.sum(), atol=0.03)
    assert torch.equal(Sampling(1.0, 1.0, seed=3)(logits), Sampling(1.0, 1.0, seed=3)(logits))
    model = tiny()
    greedy = answers_of(model, PROMPTS, IMAGES, 39, 6)
    assert answers_of(model, PROMPTS, IMAGES, 39, 6, (), Sampling(1e-4, 1.0)) == greedy
    with pytest.raises(CmrvlmError, match="top_p"):
        Sampling(1.0, 0.0)


@torch.no_grad()
def test_with_enough_beams_the_likeliest_answer_of_all_is_found():
    model = tiny(vocab_size=12)
    end, prompt = 11, [3, 1, 4]

    def log_probabilities(tokens):
        whole = torch.tensor([[*prompt, *tokens]])
        layout = layout_of(torch.ones_like(whole, dtype=torch.bool), 1, [len(prompt)])
        return model.logits(model.hidden(model.embed(whole), layout))[
            0, len(prompt) - 1 :
        ].log_softmax(dim=-1)

    def score(tokens):
        table = log_probabilities(tokens)
        return float(sum(table[k, t] for k, t in enumerate([*tokens, end]))) / (len(tokens) + 1)

    all_answers = [[], *([a] for a in range(11)), *([a, b] for a in range(11) for b in range(11))]
    best = max(all_answers, key=score)
    together = embed_prompts(
        model, 10, [model.embed(torch.zeros(0, dtype=torch.long))] * 2, [prompt, [5, 2]], [0, 1]
    )
    found = beam_search(model, together, end, 2, beams=12)
    assert found[0] == best
    assert score(beam_search(model, one_prompt(model, prompt), end, 2, beams=2)[0]) <= score(best)


def test_ways_of_decoding_keep_to_what_is_allowed():
    model = tiny()
    prompts = [[3, 1, 4], [1, 5, 9, 2, 6], [7, 7]]
    allowed = [[[5, 6, 39], [5, 7, 8, 39], [11, 39]], [], [[20, 21, 39]]]
    tokens = [model.embed(torch.zeros(0, dtype=torch.long))] * 3
    asked = embed_prompts(model, IMAGE, tokens, prompts, [0, 1, 2])
    for decode in (Greedy(), Sampled(), Beams(3)):
        first, free, only = decode(model, asked, 39, 6, rules_of(allowed))
        assert [*first, 39] in allowed[0]
        assert only == [20, 21]
        if isinstance(decode, Beams):
            assert free == beam_search(model, asked, 39, 6, 3)[1]
    assert Beams(3)(model, asked, 39, 6) == beam_search(model, asked, 39, 6, 3)
    with pytest.raises(CmrvlmError, match="0 beams"):
        Beams(0)


def test_images_fill_their_places_in_order():
    ids = torch.tensor([[1, 9, 9, 2], [9, 3, 0, 0]])
    embeddings = torch.zeros(2, 4, 2)
    filled = fill_image_places(
        embeddings, ids, 9, [torch.tensor([[1.0, 1], [2, 2]]), torch.tensor([[3.0, 3]])]
    )
    assert filled[..., 0].tolist() == [[0, 1, 2, 0], [3, 0, 0, 0]]


@pytest.mark.parametrize("counts", [(1, 1), (2, 2), (3, 0)])
def test_another_number_of_tokens_than_places_is_refused(counts):
    ids = torch.tensor([[1, 9, 9, 2], [9, 3, 0, 0]])
    with pytest.raises(CmrvlmError, match="image places"):
        fill_image_places(torch.zeros(2, 4, 2), ids, 9, [torch.ones(n, 2) for n in counts])
