"""Parts of different runs put together are refused by name."""

import json
import shutil

import pytest
import yaml
from safetensors.torch import load_file, save_file

from cmrvlm.errors import CmrvlmError
from cmrvlm.export import export
from cmrvlm.predict import predict
from cmrvlm.runs.fingerprints import FINGERPRINTS, check_fingerprints, write_fingerprints
from cmrvlm.runs.handover import hand_over
from cmrvlm.runs.run_folder import load_run
from tests.conftest import ROOT, composed

RUN = ROOT / "tests" / "runs" / "run_before_moves"


@pytest.fixture
def run(tmp_path):
    folder = shutil.copytree(RUN, tmp_path / "run")
    write_fingerprints(folder)
    return folder


def _other_weights(run):
    path = run / "model.safetensors"
    save_file({name: weight * 1.01 for name, weight in load_file(path).items()}, path)


def _shuffled_tokenizer(run):
    path = run / "tokenizer" / "tokenizer.json"
    content = json.loads(path.read_text())
    vocab = content["model"]["vocab"]
    first, second = list(vocab)[-2:]
    vocab[first], vocab[second] = vocab[second], vocab[first]
    path.write_text(json.dumps(content))


def _other_split(run):
    path = run / "split.json"
    split = json.loads(path.read_text())
    split["train"], split["test"] = split["test"], split["train"]
    path.write_text(json.dumps(split))


def _other_lineage(run):
    path = run / "lineage.json"
    content = json.loads(path.read_text())
    content["train"] = []
    path.write_text(json.dumps(content))


def _other_seed(run):
    path = run / "config.yaml"
    config = yaml.safe_load(path.read_text())
    config["seed"] += 1
    path.write_text(yaml.safe_dump(config))


def _other_task(run):
    path = run / "config.yaml"
    config = yaml.safe_load(path.read_text())
    del config["mix"]["tasks"]["phase"]
    path.write_text(yaml.safe_dump(config))


CHANGES = {
    "model.safetensors": _other_weights,
    "tokenizer/tokenizer.json": _shuffled_tokenizer,
    "split.json": _other_split,
    "lineage.json": _other_lineage,
    "config.yaml": _other_seed,
    "config.yaml ": _other_task,
    "labels.json": lambda run: (run / "labels.json").unlink(),
    "tokenizer/added_tokens.json": lambda run: (run / "tokenizer" / "added_tokens.json").write_text(
        "{}"
    ),
    "language_model.json": lambda run: (run / "language_model.json").write_text("{}"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_part_of_another_run_is_named(run, tmp_path, name):
    CHANGES[name](run)
    match = rf"run/{name.strip()}"
    with pytest.raises(CmrvlmError, match=match):
        load_run(run)
    with pytest.raises(CmrvlmError, match=match):
        export(run, "language_model", tmp_path / "out")
    settings = (f"run={run}", f"study={run}", f"out={tmp_path / 'out'}")
    config = composed(*settings, name="predict")
    with pytest.raises(CmrvlmError, match=match):
        predict(config)
    model = load_run(RUN).model
    with pytest.raises(CmrvlmError, match=rf"{match}.*stage\.init_from"):
        hand_over(model, run)
    assert not (tmp_path / "out").exists()


def test_a_run_that_moved_to_another_machine_stays_one(run, tmp_path):
    path = run / "config.yaml"
    config = yaml.safe_load(path.read_text())
    config["data"]["cache_dir"] = "/elsewhere"
    config["paths"]["runs"] = "/elsewhere"
    config["llm"]["network"]["attention_implementation"] = "eager"
    path.write_text(yaml.safe_dump(config))
    moved = shutil.move(run, tmp_path / "moved")
    check_fingerprints(tmp_path / "moved")
    load_run(tmp_path / "moved")
    assert moved


def test_runs_of_earlier_versions_are_read(run):
    (run / FINGERPRINTS).unlink()
    load_run(run)
