"""A language model in bfloat16 is trained, sampled, evaluated and applied in one precision."""

import json

import pytest
import torch
from safetensors.torch import load_file

from cmrvlm.errors import CmrvlmError
from cmrvlm.evaluation.evaluate import evaluate
from cmrvlm.models.precision import check_precision
from cmrvlm.models.vision_language_model import VisionLanguageModel
from cmrvlm.predict import predict
from cmrvlm.runs.run_folder import load_run
from cmrvlm.stages.training import train
from cmrvlm.study.files import write_study
from tests.conftest import composed
from tests.language_model.test_pretrained import FAMILIES, published_tokenizer


@pytest.fixture(scope="session")
def in_bfloat16(tmp_path_factory):
    """Save a tiny network of each family in bfloat16; return family to folder."""
    folders = {}
    for family in ("qwen3", "llama", "minicpm3"):
        torch.manual_seed(1)
        folders[family] = tmp_path_factory.mktemp(f"bfloat16_{family}")
        tokenizer = published_tokenizer()
        tokenizer.save_pretrained(folders[family])
        FAMILIES[family](len(tokenizer)).bfloat16().save_pretrained(folders[family])
    return folders


def overrides(base, adapter, precision, cache, run):
    return [
        "+experiment=stage3",
        "+debug=fast",
        "llm=local",
        f"llm.network.path={base}",
        "llm.network.dtype=bfloat16",
        f"adapter={adapter}",
        f"trainer.precision={precision}",
        f"paths.cache={cache}",
        f"out={run}",
        f"run_dir={run}",
    ]


@pytest.mark.slow  # each variant trains and predicts
@pytest.mark.parametrize(
    ("family", "adapter", "precision"),
    [
        ("qwen3", "full", "bf16-mixed"),
        ("qwen3", "lora", "32"),
        ("qwen3", "full", "32"),
        ("llama", "lora", "32"),
        ("qwen3", "lora", "bf16-mixed"),
        ("minicpm3", "dora", "32"),
        ("minicpm3", "none", "bf16-mixed"),
    ],
)
def test_a_model_in_bfloat16_goes_from_training_to_prediction(
    in_bfloat16, cache, tmp_path, source, family, adapter, precision
):
    run = tmp_path / "run"
    train(composed(*overrides(in_bfloat16[family], adapter, precision, cache, run)), run)
    samples = [
        json.loads(line)
        for path in run.glob("samples/*.jsonl")
        for line in path.read_text().splitlines()
    ]
    assert any("SEG" in sample["target"] for sample in samples)
    model = load_run(run).model
    assert next(model.llm.network.parameters()).dtype == torch.bfloat16
    # What is added to the network is trained, and saved in full precision.
    weights = load_file(run / "model.safetensors")
    added = [key for key in weights if ".network." not in key or "lora_" in key]
    assert {weights[key].dtype for key in added} == {torch.float32}
    metrics = evaluate(
        composed(
            f"run={run}",
            f"out={run / 'evaluation'}",
            "max_new_tokens=8",
            "cases_per_task=1",
            "bootstrap=10",
            name="evaluate",
        )
    )
    assert metrics["failures"] == {}
    assert metrics["tasks"]["segment_lv"]["dice"]["n"] > 0
    write_study(source.load(source.study_ids()[3]), tmp_path / "exam")
    result = predict(
        composed(
            f"run={run}",
            f"study={tmp_path / 'exam'}",
            f"out={tmp_path / 'out'}",
            "max_new_tokens=8",
            name="predict",
        )
    )
    assert all(0 <= value <= 1 for value in result["probabilities"].values())
    assert (tmp_path / "out" / "sax_mask.nii.gz").is_file()


def test_a_run_in_mixed_precision_answers_in_mixed_precision(
    in_bfloat16, cache, tmp_path, source, monkeypatch
):
    """Encoders compute for samples and in prediction in the precision of the training."""
    modes = []
    precisions = set()
    encode = VisionLanguageModel.encode

    def recording_encode(self, media):
        features = encode(self, media)
        modes.append(self.training)
        precisions.add((torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")))
        return features

    monkeypatch.setattr(VisionLanguageModel, "encode", recording_encode)
    run = tmp_path / "run"
    train(composed(*overrides(in_bfloat16["qwen3"], "lora", "bf16-mixed", cache, run)), run)
    write_study(source.load(source.study_ids()[3]), tmp_path / "exam")
    predict(
        composed(
            f"run={run}",
            f"study={tmp_path / 'exam'}",
            f"out={tmp_path / 'out'}",
            "max_new_tokens=2",
            name="predict",
        )
    )
    assert set(modes) == {True, False}
    assert precisions == {(True, torch.bfloat16)}


def test_unsupported_precisions_are_refused_before_anything_is_made(small_config, tmp_path):
    for name in ("bf16-true", "16-true", "64-true", "fp8"):
        with pytest.raises(CmrvlmError, match=rf"trainer\.precision.*'{name}'.*bf16-mixed"):
            train(small_config("+experiment=stage3", f"trainer.precision={name}"), tmp_path / "run")
    assert not (tmp_path / "run" / "config.yaml").exists()


@pytest.mark.parametrize(
    ("precision", "expected"),
    [("bf16", "bf16-mixed"), ("16", "16-mixed"), (None, "32-true"), (32, "32")],
)
def test_precisions_are_taken_as_lightning_takes_them(precision, expected):
    assert check_precision(precision) == expected
