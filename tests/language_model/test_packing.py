"""Packed rows say what each row by itself would say, in loss and gradient, for each kind of language model."""

from dataclasses import replace

import pytest
import torch
from transformers import MiniCPM3Config, MiniCPM3ForCausalLM

from cmrvlm.instructions.batch import TextRows
from cmrvlm.language_model.attention_mask import Layout
from cmrvlm.language_model.fusion import fill_image_places
from cmrvlm.language_model.network import LanguageModel, tiny_language_model
from cmrvlm.language_model.packing import pack
from cmrvlm.losses.language import answer_cross_entropy
from cmrvlm.models.features import MarkIds
from cmrvlm.models.vision_language_model import VisionLanguageModel

IMAGE = 39


def some_rows(groups, images, questions, answers, seed=0):
    """Rows of random tokens: begin and images, question, answer; the lengths of each part are given."""
    generator = torch.Generator().manual_seed(seed)
    heads = [1 + images[group] for group in groups]
    prompts = [head + question for head, question in zip(heads, questions, strict=True)]
    lengths = [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)]
    ids = torch.randint(1, IMAGE, (len(groups), max(lengths)), generator=generator)
    ids[:, 0] = 1
    for row, (head, length) in enumerate(zip(heads, lengths, strict=True)):
        ids[row, 1:head] = IMAGE
        ids[row, length:] = 0
    return TextRows(ids, *(torch.tensor(one) for one in (groups, heads, prompts, lengths)))


ROWS = some_rows(
    [0, 1, 0, 2, 0, 1, 3], {0: 5, 1: 3, 2: 0, 3: 2}, [3, 4, 1, 5, 2, 2, 6], [4, 1, 7, 2, 3, 5, 1]
)


def minicpm3(attention="prefix", attention_implementation="sdpa"):
    """Latent attention, as in the research code's language model."""
    config = MiniCPM3Config(
        vocab_size=40,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        intermediate_size=48,
        q_lora_rank=16,
        kv_lora_rank=16,
        qk_nope_head_dim=8,
        qk_rope_head_dim=8,
        v_head_dim=8,
        scale_emb=12,
        dim_model_base=8,
        attn_implementation=attention_implementation,
    )
    return LanguageModel(MiniCPM3ForCausalLM(config), attention)


def model_of(family="qwen3", **changes):
    torch.manual_seed(0)
    sizes = {
        "vocab_size": 40,
        "hidden_size": 32,
        "layers": 2,
        "heads": 4,
        "intermediate_size": 48,
        "family": family,
    }
    llm = minicpm3(**changes) if family == "minicpm3" else tiny_language_model(**sizes | changes)
    return VisionLanguageModel({}, {}, llm.eval(), {}, None, MarkIds(IMAGE, 37, 38))


def images_of(rows):
    """Image tokens of each row, the same for rows of a group."""
    return [
        torch.randn(
            int(n) - 1, 32, generator=torch.Generator().manual_seed(int(group))
        ).requires_grad_()
        for group, n in zip(rows.groups, rows.image_lengths, strict=True)
    ]


def apart(model, rows, tokens):
    """Hidden states without packing."""
    valid = rows.is_token()
    embeddings = fill_image_places(model.llm.embed(rows.ids), rows.ids, IMAGE, tokens)
    return model.llm.hidden(
        embeddings, Layout.of_rows(valid, rows.image_lengths, rows.prompt_lengths)
    )


def test_images_are_packed_once_and_every_token_is_found():
    packed = pack(ROWS, 32)
    there = packed.layout.groups >= 0
    heads = {int(g): int(n) for g, n in zip(ROWS.groups, ROWS.image_lengths, strict=True)}
    assert there.sum() == sum(heads.values()) + (ROWS.lengths - ROWS.image_lengths).sum()
    valid = ROWS.is_token()
    assert (packed.ids.flatten()[packed.flat_positions][valid] == ROWS.ids[valid]).all()
    assert (
        packed.layout.groups.flatten()[packed.flat_positions][valid]
        == ROWS.groups[:, None].expand_as(valid)[valid]
    ).all()
    assert (packed.ids == IMAGE).sum() == 5 + 3 + 0 + 2
    assert not (packed.ids[~there] == IMAGE).any()


def test_packed_rows_are_filled_with_whole_groups():
    rows = some_rows([0, 1, 2, 3], {0: 300, 1: 200, 2: 150, 3: 50}, [5] * 4, [5] * 4)
    packed = pack(rows, 160)
    assert packed.ids.shape == (2, 372)
    assert packed.image_sources == [[0, 3], [1, 2]]
    long = some_rows([0, 0, 1], {0: 500, 1: 300}, [5] * 3, [5] * 3)
    assert pack(long, 8).ids.shape == (2, 521)  # attention is what costs: short rows
    assert pack(long, 4096).ids.shape == (1, 521 + 311)  # tokens are what costs: no padding


@pytest.mark.parametrize("width", [8, 160, 4096])
def test_the_packed_length_costs_least(width):
    rows = some_rows([0, 0, 1, 2, 2], {0: 400, 1: 30, 2: 90}, [5, 9, 4, 3, 8], [5, 30, 2, 7, 60])
    count, length = pack(rows, width).ids.shape
    sizes = {0: 1 + 400 + 10 + 39, 1: 1 + 30 + 6, 2: 1 + 90 + 10 + 68}
    ways = [(1, sum(sizes.values())), (2, sizes[0]), (3, sizes[0])]
    assert count * length * (6 * width + length) == min(
        n * size * (6 * width + size) for n, size in ways
    )


@pytest.mark.parametrize("attention", ["prefix", "causal"])
@pytest.mark.parametrize("family", ["qwen3", "llama", "minicpm3"])
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_packed_loss_and_gradient_equal_those_of_single_rows(family, attention, implementation):
    model = model_of(family=family, attention=attention, attention_implementation=implementation)
    results = []
    for read in (model.read, lambda rows, tokens: apart(model, rows, tokens)):
        model.zero_grad()
        tokens = images_of(ROWS)
        logits, labels = model.answer_logits(read(ROWS, tokens), ROWS)
        loss = answer_cross_entropy(logits, labels, torch.ones(len(labels)))
        loss.backward()
        # Of rows with the same images one copy is read: their gradients add up.
        shared = torch.stack(
            [
                sum(
                    t.grad.sum()
                    for t, g in zip(tokens, ROWS.groups, strict=True)
                    if g == group and t.grad is not None
                )
                + torch.zeros(())
                for group in (0, 1, 3)
            ]
        )
        results.append((loss, [p.grad for p in model.parameters()], shared))
    (packed, ours, images), (single, theirs, single_images) = results
    assert packed.item() == pytest.approx(single.item(), rel=1e-6)
    for one, other in zip(ours, theirs, strict=True):
        assert (one - other).abs().max() <= 1e-5 * max(1.0, other.abs().max().item())
    assert (images - single_images).abs().max() < 1e-4


@torch.no_grad()
def test_a_packed_row_does_not_attend_to_its_neighbours():
    model = model_of()
    tokens = images_of(ROWS)
    before = model.read(ROWS, tokens)
    ids = ROWS.ids.clone()
    ids[2, int(ROWS.image_lengths[2]) : int(ROWS.lengths[2])] = 7
    after = model.read(replace(ROWS, ids=ids), tokens)
    valid = ROWS.is_token()
    difference = ((after - before).abs().amax(dim=-1) * valid).amax(dim=1)
    assert difference[2] > 1e-3
    assert (difference[[0, 1, 3, 4, 5, 6]] < 1e-5).all()


@torch.no_grad()
def test_rows_without_images_are_packed():
    model = model_of()
    rows = some_rows([0, 0, 1], {0: 0, 1: 0}, [3, 2, 4], [2, 5, 1])
    tokens = [torch.zeros(0, 32)] * 3
    valid = rows.is_token()
    assert (model.read(rows, tokens)[valid] - apart(model, rows, tokens)[valid]).abs().max() < 1e-5
