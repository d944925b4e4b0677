"""A training is resumed, or begun from an earlier run, only with the model, tokenizer, base and split that belong to it."""

import json
import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM

from cmrvlm.errors import CmrvlmError
from cmrvlm.stages.training import train
from tests.conftest import composed
from tests.language_model.test_pretrained import FAMILIES, published_tokenizer
from tests.runs.test_run_folders import FAST
from tests.stages.test_training import SMALL


def _trained(folder, cache, *overrides):
    fast = [one for one in FAST if one not in SMALL[2:]]
    settings = (f"paths.cache={cache}", f"out={folder}", f"run_dir={folder}")
    config = composed(*fast, "trainer.max_steps=1", *settings, *overrides)
    train(config, folder)
    return folder


def _base(folder, seed):
    tokenizer = published_tokenizer()
    tokenizer.save_pretrained(folder)
    torch.manual_seed(seed)
    FAMILIES["llama"](len(tokenizer)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def on_base(tmp_path_factory, cache):
    """A base model and a run with an adapter on it."""
    root = tmp_path_factory.mktemp("on_base")
    base = _base(root / "base", 1)
    run = _trained(root / "run", cache, "llm=local", f"llm.network.path={base}", "adapter=lora")
    return base, run


def _other_weights(base, folder):
    return _base(folder, 2)


def _one_weight(base, folder):
    network = AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():
        network.get_input_embeddings().weight.add_(0.1)
    shutil.copytree(base, folder)
    network.save_pretrained(folder)
    return folder


def _other_rope(base, folder):
    shutil.copytree(base, folder)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["rms_norm_eps"] = 0.5
    path.write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("change", [_other_weights, _one_weight, _other_rope])
def test_another_base_model_is_refused(on_base, cache, tmp_path, change):
    base, run = on_base
    other = change(base, tmp_path / "other")
    on_other = ("llm=local", f"llm.network.path={other}", "adapter=lora")
    checkpoint = run / "checkpoints" / "last.ckpt"
    with pytest.raises(CmrvlmError, match=r"last\.ckpt.*belongs to another training.*(base|arch)"):
        _trained(tmp_path / "on", cache, *on_other, f"ckpt_path={checkpoint}")
    with pytest.raises(
        CmrvlmError, match=r"stage\.init_from.*the language model has another|other"
    ):
        _trained(tmp_path / "next", cache, *on_other, f"stage.init_from={run}")


def _swap(run, name, values):
    path = run / name
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | values(content)))


SWAPS = {
    "split.json": lambda split: {"train": split["test"], "test": split["train"]},
    "lineage.json": lambda parts: {"train": []},
}


@pytest.mark.parametrize("name", [*SWAPS, "tokenizer", "width"])
def test_a_checkpoint_in_another_run_is_refused(on_base, cache, tmp_path, name):
    base, finished = on_base
    run = shutil.copytree(finished, tmp_path / "run")
    overrides = ["llm=local", f"llm.network.path={base}", "adapter=lora"]
    match = rf"{name}.*ckpt_path.*another run"
    if name in SWAPS:
        _swap(run, name, SWAPS[name])
    elif name == "width":
        overrides.append("projector.hidden=24")
        match = "belongs to another training: names and shapes"
    else:
        path = run / "tokenizer" / "tokenizer.json"
        content = json.loads(path.read_text())
        vocab = content["model"]["vocab"]
        first, second = list(vocab)[-2:]
        vocab[first], vocab[second] = vocab[second], vocab[first]
        path.write_text(json.dumps(content))
        match = "belongs to another training: the tokenizer"
    overrides.append(f"ckpt_path={run / 'checkpoints' / 'last.ckpt'}")
    with pytest.raises(CmrvlmError, match=match):
        _trained(tmp_path / "on", cache, *overrides)
