"""Every yaml composes alone, and every `_target_` in it imports and takes its keywords."""

import inspect
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from cmrvlm.config.build import resolve
from cmrvlm.config.setting_types import check_setting_types
from tests.conftest import CONF, composed

GROUPS = sorted(
    p.name for p in CONF.iterdir() if p.is_dir() and p.name not in {"experiment", "sweep", "debug"}
)
FILES = [(group, path.stem) for group in GROUPS for path in sorted((CONF / group).glob("*.yaml"))]
APPENDED = [
    (g, p.stem) for g in ("experiment", "sweep", "debug") for p in sorted((CONF / g).glob("*.yaml"))
]
PLACE = {
    "encoder": "encoder@encoders.sax",
    "task": "+task@mix.tasks.extra",
    "decoding": "+decoding",
    "masks": "+masks",
    "command": "+command",
}
# What other files of the group inherit from, and nobody chooses: a data set without its source.
INHERITED = ("data", "base")
PLACED = ["run_dir=here", "out=here"]


def targets(tree, where=""):
    if isinstance(tree, dict):
        if "_target_" in tree:
            yield where, tree
        for key, value in tree.items():
            yield from targets(value, f"{where}.{key}")
    elif isinstance(tree, list):
        for index, value in enumerate(tree):
            yield from targets(value, f"{where}[{index}]")


def check_keywords(tree):
    for where, node in targets(tree):
        found = resolve(node["_target_"], where)
        check_setting_types(found, node, where)
        keywords = {key: None for key in node if not (key.startswith("_") and key.endswith("_"))}
        parameters = inspect.signature(found).parameters
        takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
        unknown = set(keywords) - set(parameters)
        known_elsewhere = {
            "init_from",
            "root",
            "sequences",
            "path",
            "optimizer",
            "schedule",
            "trainable",
            "loss_weights",
            "seed",
        }
        assert takes_any or unknown <= known_elsewhere, f"{where}: {unknown}"


@pytest.mark.parametrize(("group", "name"), FILES)
def test_choice_composes_and_its_targets_take_its_keywords(group, name):
    override = f"{PLACE.get(group, group)}={name}"
    text = (CONF / group / f"{name}.yaml").read_text()
    extra = [
        f"data.{key}=here"
        for key in ("root", "path")
        if group == "data" and f"\n{key}: ???" in text
    ]
    extra += ["llm.network.path=here"] if group == "llm" and "path: ???" in text else []
    # Quantized weights are those of a pretrained model.
    extra += ["llm=local", "llm.network.path=here"] if (group, name) == ("adapter", "qlora") else []
    check_keywords(composed(override, *extra, *PLACED))


@pytest.mark.parametrize(("group", "name"), APPENDED)
def test_appended_choice_composes(group, name):
    GlobalHydra.instance().clear()
    needs = (
        {"data.root=here"} if "data: acdc" in (CONF / group / f"{name}.yaml").read_text() else set()
    )
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", overrides=[f"+{group}={name}", *needs, *PLACED])
    check_keywords(OmegaConf.to_container(config, resolve=True))


ENTRY_POINTS = {
    "evaluate": ["run=here"],
    "predict": ["run=here", "study=there"],
    "export": ["run=here"],
    "check": [],
    "ingest": ["source=here", "out=there"],
    "shard": ["out=there"],
    "cache": [],
}


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_other_entry_points_compose_and_their_targets_take_their_keywords(name):
    config = composed(*ENTRY_POINTS[name], name=name)
    assert ("run" in config) == ("run=here" in ENTRY_POINTS[name] or name == "check")
    check_keywords(config)


def test_every_entry_point_is_composed():
    assert {path.stem for path in CONF.glob("*.yaml")} == {"train", *ENTRY_POINTS}


def test_every_data_set_inherits_the_shared_settings():
    base = yaml.safe_load((CONF / "data" / "base.yaml").read_text())
    assert "source" not in base
    for group, name in FILES:
        if group == "data" and (group, name) != INHERITED:
            made = yaml.safe_load((CONF / group / f"{name}.yaml").read_text())
            assert made["defaults"][0] in ("base", "phantom"), name
            assert not set(made) & set(base), name


def test_every_command_inherits_how_hydra_runs_it():
    for path in CONF.glob("*.yaml"):
        made = yaml.safe_load(path.read_text())
        assert "command/default" in made["defaults"], path
        assert not {"run", "job"} & set(made.get("hydra", {})), path


def test_only_appended_files_override():
    for path in CONF.rglob("*.yaml"):
        text = path.read_text()
        if "override /" in text:
            assert text.startswith("# @package _global_"), path
            assert path.parent.name in {"experiment", "sweep", "debug"}


def test_sequence_is_dropped_on_the_command_line():
    assert set(composed("~encoder@encoders.lge", *PLACED)["encoders"]) == {"sax", "lax_4ch"}


def test_every_yaml_is_a_mapping():
    for path in CONF.rglob("*.yaml"):
        assert isinstance(yaml.safe_load(Path(path).read_text()), dict), path


DATA_SETS = sorted(path.stem for path in (CONF / "data").glob("*.yaml") if path.stem != "base")


@pytest.mark.parametrize("name", DATA_SETS)
def test_the_fast_run_takes_any_data_set(name):
    text = (CONF / "data" / f"{name}.yaml").read_text()
    needs = [f"data.{key}=here" for key in ("root", "path") if f"\n{key}: ???" in text]
    config = composed("+experiment=stage3", "+debug=fast", f"data={name}", *needs, *PLACED)
    check_keywords(config)
    assert config["trainer"]["max_steps"] == 2
    assert config["data"]["source"]["_target_"] in text or name.startswith("phantom")


def test_the_fast_run_has_small_phantoms_of_its_own():
    assert composed("+debug=fast", *PLACED)["data"]["source"]["count"] == 32
