"""Pretrained models of another person: their folders are data, and nothing in them is run or followed."""

import io
import json
import os
import pickle
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from cmrvlm.errors import CmrvlmError
from cmrvlm.language_model.pretrained import pretrained_language_model
from cmrvlm.language_model.text_tower import SentenceTower
from cmrvlm.metrics.bert_score import check_bert_model
from tests.watch import watched

VOCABULARY = 40


class Bomb:
    """What a pickle of an attacker holds."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Fail where something waits or works without end."""

    def late(*unused):
        raise AssertionError("it takes without end")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good") / "model"
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    load(folder)
    return folder


@pytest.fixture
def theirs(tmp_path, good, monkeypatch):
    folder = tmp_path / "theirs" / "model"
    shutil.copytree(good, folder)
    (tmp_path / "precious.txt").write_text("years of work")
    code = f"import os\nos.mkdir({str(tmp_path / 'marker')!r})\nclass Mine: pass\n"
    for name in ("mine.py", "modeling_llama.py", "configuration_llama.py", "evil.py"):
        (folder / name).write_text(code)
        (folder.parent / name).write_text(code)
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate" / "generate.py").write_text(code)
    monkeypatch.chdir(folder.parent)
    monkeypatch.syspath_prepend(str(folder.parent))
    # Whoever is asked whether to run code may say yes.
    monkeypatch.setattr("builtins.input", lambda *unused: "y")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return folder


def load(folder: Path) -> object:
    return pretrained_language_model(VOCABULARY + 4, path=str(folder), attention="causal")


def harmless(folder: Path, attempt: Callable[[], object], *, refused: bool | None) -> None:
    """Make an attempt; nothing may happen, whether it is refused by one error or read as data."""
    with watched(folder.parent) as seen, time_limit(20):
        if refused:
            with pytest.raises(CmrvlmError):
                attempt()
        elif refused is None:
            _or_refused(attempt)
        else:
            attempt()
    assert seen == []
    assert not (folder.parents[1] / "marker").exists()
    assert (folder.parents[1] / "precious.txt").read_text() == "years of work"


def _or_refused(attempt: Callable[[], object]) -> None:
    try:
        attempt()
    except CmrvlmError:
        return


AUTO = {"AutoConfig": "mine.Mine", "AutoModelForCausalLM": "mine.Mine", "AutoModel": "mine.Mine"}
HUB = {name: f"owner/repo--{target}" for name, target in AUTO.items()}
# What config.json says; whether it is refused, or None where both are right.
CONFIG = {
    "code of its own": ({"auto_map": AUTO, "model_type": "mine"}, True),
    "code for a known kind": ({"auto_map": AUTO}, None),
    "code of the hub": ({"auto_map": HUB, "model_type": "mine"}, True),
    "trust in itself": ({"auto_map": AUTO, "model_type": "mine", "trust_remote_code": True}, True),
    "an unknown kind": ({"model_type": "evil"}, True),
    "a kind that is a path": ({"model_type": "../../mine"}, True),
    "a kind that is a list": ({"model_type": ["llama"]}, True),
    "a class by its name": ({"architectures": ["os.system"]}, None),
    "a class of elsewhere": ({"architectures": ["mine.Mine"]}, None),
    "a kernel of the hub": ({"_attn_implementation": "owner/kernel"}, None),
    "another kernel of the hub": ({"attn_implementation": "owner/kernel:load"}, None),
    "kernels for experts": ({"experts_implementation": "owner/kernel"}, None),
    "weights elsewhere": ({"transformers_weights": "../../precious.txt"}, None),
    "weights of the hub": ({"transformers_weights": "owner/repo"}, None),
    "a name elsewhere": ({"_name_or_path": "../../precious"}, None),
    "an activation that is a name": ({"hidden_act": "os.system"}, True),
    "an activation that is code": ({"hidden_act": "__import__('os')"}, True),
    "a type that is a function": ({"torch_dtype": "load"}, None),
    "another type that is a function": ({"dtype": "hub.load"}, None),
    "positions by a name": ({"rope_scaling": {"rope_type": "evil", "factor": 1}}, True),
    "layers without end": ({"num_hidden_layers": 10**9}, True),
    "layers below zero": ({"num_hidden_layers": -1}, True),
    "a width without end": ({"hidden_size": 10**9, "head_dim": 8}, True),
    "heads without end": ({"num_attention_heads": 10**9}, True),
    "no heads": ({"num_attention_heads": 0}, True),
    "words without end": ({"vocab_size": 10**12}, True),
    "a width in words": ({"hidden_size": "wide"}, True),
    "positions without end": ({"max_position_embeddings": 10**15}, None),
    "quantized by itself": ({"quantization_config": {"quant_method": "evil"}}, True),
    "quantized by code": ({"quantization_config": {"quant_method": "mine.Mine"}}, True),
    "quantized by objects": (
        {
            "quantization_config": {
                "quant_method": "torchao",
                "quant_type": {"default": {"_type": "os.system", "_data": {}}},
            }
        },
        True,
    ),
    "quantized by kernels": ({"quantization_config": {"quant_method": "fp8"}}, True),
    "quantized by a text": ({"quantization_config": "mine"}, True),
    "a plan of devices": ({"base_model_tp_plan": {"layers.*": "mine.Mine"}}, None),
    "a part with code": ({"text_config": {"auto_map": AUTO, "model_type": "mine"}}, None),
}


@pytest.mark.parametrize("name", CONFIG)
def test_what_a_model_says_of_itself_runs_nothing(theirs, name):
    values, refused = CONFIG[name]
    path = theirs / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    harmless(theirs, lambda: load(theirs), refused=refused)


OTHERS = [name for name, (_, refused) in CONFIG.items() if refused]


@pytest.mark.parametrize("name", OTHERS)
def test_a_model_that_scores_texts_runs_nothing(theirs, name):
    path = theirs / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | CONFIG[name][0]))
    harmless(theirs, lambda: check_bert_model(str(theirs), 1), refused=True)
    harmless(theirs, lambda: SentenceTower(str(theirs)), refused=True)


def _torch_file(content: object) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def _index(target: str) -> bytes:
    names = ["model.embed_tokens.weight", "lm_head.weight"]
    return json.dumps({"metadata": {}, "weight_map": dict.fromkeys(names, target)}).encode()


def _marker(theirs: Path) -> Path:
    return theirs.parents[1] / "marker"


# Files in place of model.safetensors, by a function of the folder.
WEIGHTS = {
    "a pickle": ("pytorch_model.bin", lambda theirs: pickle.dumps(Bomb(_marker(theirs)))),
    "a file of PyTorch": ("pytorch_model.bin", lambda theirs: _torch_file(Bomb(_marker(theirs)))),
    "a pickle by another name": (
        "model.safetensors",
        lambda theirs: pickle.dumps(Bomb(_marker(theirs))),
    ),
    "a list elsewhere": (
        "model.safetensors.index.json",
        lambda theirs: _index("../../precious.txt"),
    ),
    "a list at a path": ("model.safetensors.index.json", lambda theirs: _index("/etc/passwd")),
    "a list of pickles": (
        "pytorch_model.bin.index.json",
        lambda theirs: _index("../../precious.txt"),
    ),
    "a list that is none": ("model.safetensors.index.json", lambda theirs: b"[]"),
    "a list that is no JSON": ("model.safetensors.index.json", lambda theirs: b"{"),
    "a network of Flax": ("flax_model.msgpack", lambda theirs: b"x"),
    "a network of TensorFlow": ("tf_model.h5", lambda theirs: b"x"),
    "nothing": ("nothing", lambda theirs: b""),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_of_a_model_are_data_alone(theirs, name):
    file, content = WEIGHTS[name]
    (theirs / "model.safetensors").unlink()
    (theirs / file).write_bytes(content(theirs))
    harmless(theirs, lambda: load(theirs), refused=True)


BESIDE = {
    "settings of answers that are no JSON": ("generation_config.json", "{", None),
    "settings of answers that are a list": ("generation_config.json", "[]", None),
    "settings of answers with code": (
        "generation_config.json",
        json.dumps({"custom_generate": "mine.py", "auto_map": AUTO, "_from_model_config": True}),
        None,
    ),
    "settings of answers that contradict": (
        "generation_config.json",
        json.dumps({"temperature": -1, "do_sample": False, "num_beams": "x"}),
        None,
    ),
    "an adapter": ("adapter_config.json", json.dumps({"peft_type": "LORA"}), True),
    "an adapter elsewhere": (
        "adapter_config.json",
        json.dumps({"peft_type": "LORA", "base_model_name_or_path": "../../precious"}),
        True,
    ),
    "an adapter with code": (
        "adapter_config.json",
        json.dumps(
            {
                "peft_type": "LORA",
                "auto_mapping": {"base_model_class": "Mine", "parent_library": "mine"},
            }
        ),
        True,
    ),
    "a template": ("chat_template.jinja", "{{ ''.__class__ }}", False),
    "kernels": ("kernel_config.py", "import os\nos.mkdir('../../marker')\n", False),
    "a config that is no JSON": ("config.json", "{", True),
    "a config that is a list": ("config.json", "[]", True),
    "a config that is nested": ("config.json", '{"a":' * 5000, True),
    "a config that is nothing": ("config.json", "", True),
}


@pytest.mark.parametrize("name", BESIDE)
def test_what_lies_beside_a_model_runs_nothing(theirs, name):
    file, text, refused = BESIDE[name]
    (theirs / file).write_text(text)
    harmless(theirs, lambda: load(theirs), refused=refused)


@pytest.mark.parametrize("kind", ["pipe", "folder", "loop", "device", "dangling"])
@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "generation_config.json"])
def test_what_is_no_file_of_a_model_is_never_opened(theirs, file, kind):
    path = theirs / file
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to({"loop": path, "device": "/dev/zero", "dangling": "nowhere"}[kind])
    refused = None if file == "generation_config.json" else True
    harmless(theirs, lambda: load(theirs), refused=refused)
