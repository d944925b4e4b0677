"""The network computes on a GPU what it computes on the CPU, and mixes tensors of neither."""

import copy

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from cmrvlm.inference.answering import answer_batch
from cmrvlm.inference.mask_reading import MaskReading
from cmrvlm.inference.panels import mask_panel
from cmrvlm.language_model.decoding import Beams, Greedy, Sampled
from cmrvlm.language_model.network import LanguageModel
from cmrvlm.language_model.pretrained import takes_masks
from cmrvlm.runs.known_images import features_of
from cmrvlm.runs.wiring import build_collator, build_data, build_model, build_stage, build_tokenizer
from tests.conftest import composed
from tests.pretended_gpu import move_to_gpu, on_gpu, pretended_gpu


def built(cache, tmp_path, stage, *overrides):
    places = [f"paths.cache={cache}", f"out={tmp_path}", f"run_dir={tmp_path}"]
    small = ["data.batch_size=2", "mix.per_study=3", "llm.network.layers=1"]
    config = composed(f"+experiment={stage}", "+debug=fast", *places, *small, *overrides)
    data = build_data(config)
    data.prepare_data()
    tokenizer = build_tokenizer(config, data, None)
    torch.manual_seed(0)
    model = build_model(config, tokenizer)
    data.use_collator(build_collator(model, tokenizer))
    return build_stage(config, model).eval(), data


def test_the_pretended_gpu_refuses_what_a_gpu_refuses(monkeypatch):
    with pretended_gpu(monkeypatch) as device:
        here = torch.ones(2, 3)
        there = here.to(device)
        assert there.device.type == "cuda"
        assert torch.zeros(3, device=there.device).device.type == "cuda"
        assert (there + 1).sum().item() == 12
        assert there[torch.tensor([0])].tolist() == [[1, 1, 1]]
        with pytest.raises(RuntimeError, match="mixes"):
            there + here
        with pytest.raises(RuntimeError, match="mixes"):
            there @ torch.ones(3, 1)
        with pytest.raises(TypeError):
            there.numpy()
        assert there.cpu().numpy().shape == (2, 3)


@pytest.mark.parametrize(
    ("stage", "overrides"),
    [
        ("stage1", []),
        ("stage2", ["projector=mlp"]),
        ("stage3", []),
        ("stage3", ["encoder@encoders.sax=conv", "encoder@encoders.lge=unet"]),
        ("stage3", ["llm.network.attention_implementation=eager"]),
    ],
)
def test_losses_are_those_of_the_cpu(stage, overrides, cache, tmp_path, monkeypatch):
    module, data = built(cache, tmp_path, stage, *overrides)
    batch = next(iter(data.train_dataloader()))
    with torch.no_grad():
        expected = module.means(batch)
    with pretended_gpu(monkeypatch) as device:
        move_to_gpu(module)
        found = module.means(batch.to(device))
        module.check_finite(found, batch)
        assert found.keys() == expected.keys()
        for name, loss in found.items():
            assert float(loss) == pytest.approx(float(expected[name]), abs=1e-5)


def test_answers_and_masks_are_those_of_the_cpu(cache, tmp_path, monkeypatch):
    module, data = built(cache, tmp_path, "stage3")
    batch = next(iter(data.train_dataloader()))
    model = module.model
    ways = [(Greedy(), None), (Sampled(), None), (Beams(2), MaskReading(flips=True, fill=True))]
    expected = [
        answer_batch(model, data.collator, batch, 6, copy.deepcopy(decode), reading)
        for decode, reading in ways
    ]
    study = data.load_study(batch.study_ids[0])
    features = features_of(model, study)
    with pretended_gpu(monkeypatch) as device:
        move_to_gpu(model)
        moved = batch.to(device)
        for (decode, reading), answers in zip(ways, expected, strict=True):
            found = answer_batch(model, data.collator, moved, 6, decode, reading)
            assert [one.text for one in found] == [one.text for one in answers]
            for one, other in zip(found, answers, strict=True):
                assert (one.mask is None) == (other.mask is None)
                assert one.mask is None or (one.mask == other.mask).all()
        mask_panel([(moved, found)], tmp_path / "panel.png")
        for name, values in features_of(model, study).items():
            assert torch.allclose(values, features[name], atol=1e-5)


def test_special_tokens_are_added_to_weights_on_a_gpu(monkeypatch):
    """Quantized weights are there before anything else is."""
    config = LlamaConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, intermediate_size=8, tie_word_embeddings=False,
    )  # fmt: skip
    network = LlamaForCausalLM(config)
    with pretended_gpu(monkeypatch):
        network.get_input_embeddings()._parameters["weight"] = on_gpu(
            network.model.embed_tokens.weight
        )
        network.get_output_embeddings()._parameters["weight"] = on_gpu(network.lm_head.weight)
        added = LanguageModel._added_rows
        llm = LanguageModel.__new__(LanguageModel)
        torch.nn.Module.__init__(llm)
        llm.known_tokens = 20
        rows = added(llm, network.model.embed_tokens.weight, 3)
        assert rows.device.type == "cuda"


def test_masks_are_tried_under_another_default_device():
    """A network of billions is built on the device; the trial draws on the CPU."""
    network = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=2, intermediate_size=8,
        )
    )  # fmt: skip
    with torch.device("meta"):
        assert takes_masks(network)
