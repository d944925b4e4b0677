"""Language models that take no mask of who may read whom are used all the same, instruction by instruction."""

import logging
from dataclasses import replace

import pytest
import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    Lfm2Config,
    Lfm2ForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    MptConfig,
    MptForCausalLM,
)

from cmrvlm.errors import CmrvlmError
from cmrvlm.language_model.decoding import generate
from cmrvlm.language_model.network import LanguageModel, tiny_language_model
from cmrvlm.language_model.pretrained import can_share_cache, pretrained_language_model, takes_masks
from cmrvlm.language_model.prompts import embed_prompts
from cmrvlm.language_model.tokenizer import pretrained_tokenizer
from cmrvlm.losses.language import answer_cross_entropy
from cmrvlm.models.features import MarkIds
from cmrvlm.models.vision_language_model import VisionLanguageModel
from tests.language_model.test_language_model import GROUPS, IMAGES, PROMPTS
from tests.language_model.test_packing import IMAGE, ROWS, images_of, minicpm3
from tests.language_model.test_pretrained import published_tokenizer


def bloom(size=40):
    """Its bias for distances is made from a mask of tokens, so it takes no other."""
    torch.manual_seed(0)
    return BloomForCausalLM(
        BloomConfig(
            vocab_size=size, hidden_size=32, n_layer=2, n_head=4, max_position_embeddings=64
        )
    )


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_networks_that_take_masks_are_recognised(implementation):
    for family in ("qwen3", "llama"):
        assert takes_masks(
            tiny_language_model(40, family, 32, 2, attention_implementation=implementation).network
        )
    assert takes_masks(minicpm3(attention_implementation=implementation).network)
    assert takes_masks(minicpm3(attention_implementation=implementation).network.bfloat16())


def test_networks_that_ignore_masks_are_recognised():
    network = bloom()
    assert not takes_masks(network)
    assert network.training
    causal = tiny_language_model(40, hidden_size=32, layers=2).network
    forward = causal.base_model.forward
    causal.base_model.forward = lambda **given: forward(**given | {"attention_mask": None})
    assert not takes_masks(causal)
    causal.config._attn_implementation = "flash_attention_2"
    assert not takes_masks(causal)


def other(kind):
    """Small networks that keep places, or what was read, in ways of their own."""
    torch.manual_seed(0)
    if kind == "alibi":
        return MptForCausalLM(
            MptConfig(vocab_size=40, d_model=32, n_heads=4, n_layers=2, expansion_ratio=2)
        )
    if kind == "convolution":
        return Lfm2ForCausalLM(
            Lfm2Config(
                vocab_size=40,
                hidden_size=32,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=4,
                intermediate_size=48,
                layer_types=["conv", "full_attention"],
            )
        )
    return MambaForCausalLM(
        MambaConfig(vocab_size=40, hidden_size=32, num_hidden_layers=2, state_size=4)
    )


def test_networks_with_positions_of_their_own_are_recognised():
    assert not takes_masks(other("alibi"))


def test_a_recurrent_state_is_refused_before_training(tmp_path):
    for kind in ("convolution", "recurrent"):
        assert not can_share_cache(other(kind))
    assert can_share_cache(bloom())
    tokenizer = published_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    config = MambaConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, state_size=4
    )
    MambaForCausalLM(config).save_pretrained(tmp_path)
    with pytest.raises(CmrvlmError, match="recurrent state"):
        pretrained_language_model(
            len(pretrained_tokenizer([], str(tmp_path))),
            path=str(tmp_path),
            max_length=64,
            attention_implementation="eager",
        )


def test_rows_stay_within_a_sliding_window(tmp_path):
    tokenizer = published_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    MistralForCausalLM(
        MistralConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            intermediate_size=48,
            sliding_window=50,
            max_position_embeddings=512,
        )
    ).save_pretrained(tmp_path)
    size = len(pretrained_tokenizer([], str(tmp_path)))
    assert pretrained_language_model(size, path=str(tmp_path)).max_length == 50
    with pytest.raises(CmrvlmError, match="reads 50 tokens"):
        pretrained_language_model(size, path=str(tmp_path), max_length=100)


def model_of():
    return VisionLanguageModel(
        {},
        {},
        LanguageModel(bloom(), "prefix", packs=False).eval(),
        {},
        None,
        MarkIds(IMAGE, 37, 38),
    )


def one_row(row):
    cut = int(ROWS.lengths[row])
    return replace(
        ROWS,
        ids=ROWS.ids[row : row + 1, :cut],
        groups=ROWS.groups[row : row + 1],
        image_lengths=ROWS.image_lengths[row : row + 1],
        prompt_lengths=ROWS.prompt_lengths[row : row + 1],
        lengths=ROWS.lengths[row : row + 1],
    )


def test_loss_and_gradient_are_those_of_one_row_at_a_time():
    model, results = model_of(), []
    for parts in ([ROWS], [one_row(row) for row in range(len(ROWS.ids))]):
        model.zero_grad()
        images, at = images_of(ROWS), 0
        loss = torch.zeros(())
        for rows in parts:
            own = images[at : at + len(rows.ids)]
            logits, labels = model.answer_logits(model.read(rows, own), rows)
            loss = loss + answer_cross_entropy(logits, labels, torch.ones(len(labels)))
            at += len(rows.ids)
        loss.backward()
        results.append((loss, [p.grad for p in model.parameters() if p.grad is not None]))
    (together, ours), (alone, theirs) = results
    assert together.item() == pytest.approx(alone.item(), rel=1e-6)
    for one, other in zip(ours, theirs, strict=True):
        assert (one - other).abs().max() <= 1e-5 * max(1.0, other.abs().max().item())


def test_answers_equal_those_of_transformers_generate():
    """Shared images, left padding, and the cache change nothing: Transformers' own generation is the truth."""
    llm = model_of().llm
    prompts = [[min(token, 37) for token in prompt] for prompt in PROMPTS]
    tokens = [
        llm.embed(torch.tensor(own[1:count], dtype=torch.long))
        for own, count in zip(prompts, IMAGES, strict=True)
    ]
    ids = [
        [own[0], *[38] * (count - 1), *own[count:]]
        for own, count in zip(prompts, IMAGES, strict=True)
    ]
    found = generate(llm, embed_prompts(llm, 38, tokens, ids, GROUPS), 39, 6)
    for prompt, answer in zip(prompts, found, strict=True):
        whole = llm.network.generate(
            torch.tensor([prompt]),
            max_new_tokens=6,
            do_sample=False,
            eos_token_id=39,
            pad_token_id=0,
        )[0, len(prompt) :].tolist()
        assert answer == [token for token in whole if token != 39]


def test_a_warning_says_that_instructions_are_not_packed(tmp_path, caplog):
    tokenizer = published_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    bloom(len(tokenizer)).save_pretrained(tmp_path)
    size = len(pretrained_tokenizer([], str(tmp_path)))
    with caplog.at_level(logging.WARNING):
        llm = pretrained_language_model(size, path=str(tmp_path), attention_implementation="eager")
    assert not llm.packs
    assert llm.attention == "causal"
    assert "each instruction is read by itself" in caplog.text
