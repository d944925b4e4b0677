"""Every place of a configuration that builds something, and what others may write there: none of it is called."""

import copy
import functools
import io
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

from cmrvlm.config.build import build, checked_targets, resolve
from cmrvlm.config.slots import SLOTS, allowed_in
from cmrvlm.errors import CmrvlmError
from cmrvlm.evaluation.data import evaluation_data
from cmrvlm.runs.checkpoint_files import CheckpointFiles
from tests.conftest import CONF, composed
from tests.watch import watched

# What an attacker would have called, with arguments that show it.
PROBES = {
    "builtins.print": {"_args_": ["called"]},
    "builtins.eval": {"_args_": ["__import__('os').mkdir('marker')"]},
    "builtins.exec": {"_args_": ["__import__('os').mkdir('marker')"]},
    "builtins.open": {"_args_": ["marker", "w"]},
    "builtins.__import__": {"name": "antigravity"},
    "builtins.getattr": {"_args_": ["os", "mkdir"]},
    "builtins.setattr": {"_args_": ["os", "mkdir", 1]},
    "os.system": {"command": "touch marker"},
    "os.mkdir": {"path": "marker"},
    "os.remove": {"path": "precious"},
    "os.putenv": {"_args_": ["CMRVLM_EVIL", "1"]},
    "posix.mkdir": {"_args_": ["marker"]},
    "subprocess.run": {"args": ["touch", "marker"]},
    "subprocess.Popen": {"args": ["touch", "marker"]},
    "shutil.rmtree": {"path": "precious"},
    "shutil.move": {"src": "precious", "dst": "marker"},
    "pathlib.Path.unlink": {"_args_": ["precious"]},
    "pathlib.Path.write_text": {"_args_": ["marker", "x"]},
    "pathlib.Path": {"_args_": ["precious"]},
    "importlib.import_module": {"name": "evil"},
    "runpy.run_path": {"path_name": "evil.py"},
    "pickle.loads": {"data": "x"},
    "pickle.load": {"file": "evil.py"},
    "torch.load": {"f": "evil.py", "weights_only": False},
    "torch.save": {"obj": 1, "f": "marker"},
    "torch.hub.load": {"repo_or_dir": ".", "model": "load", "source": "local"},
    "torch.jit.load": {"f": "evil.py"},
    "torch.utils.cpp_extension.load": {"name": "x", "sources": ["evil.py"]},
    "numpy.load": {"file": "evil.py", "allow_pickle": True},
    "functools.partial": {"_args_": ["os.mkdir", "marker"]},
    "operator.methodcaller": {"_args_": ["unlink"]},
    "hydra.utils.instantiate": {"config": {"_target_": "os.mkdir", "path": "marker"}},
    "hydra.utils.call": {"config": {"_target_": "os.mkdir", "path": "marker"}},
    "hydra.utils.get_method": {"path": "os.mkdir"},
    "omegaconf.OmegaConf.register_new_resolver": {"_args_": ["x", "y"]},
    "transformers.AutoModel.from_pretrained": {"_args_": ["."], "trust_remote_code": True},
    "lightning.pytorch.LightningModule.load_from_checkpoint": {"checkpoint_path": "evil.py"},
    "lightning.pytorch.callbacks.LambdaCallback.__init__.__globals__": {},
    "lightning.pytorch.callbacks.model_checkpoint.shutil.rmtree": {"path": "precious"},
    "lightning.pytorch.loggers.csv_logs.os.mkdir": {"path": "marker"},
    "lightning.pytorch.trainer.Trainer.fit": {},
    "cmrvlm.runs.run_folder.save_run": {"run": "marker"},
    "cmrvlm.runs.run_folder.load_run": {"run": "."},
    "cmrvlm.inference.cmrvlm.CMRVLM.from_pretrained": {"run": "."},
    "cmrvlm.study.atomic_files.write_json": {"path": "marker", "content": 1},
    "cmrvlm.study.files.write_study": {"study": 1, "folder": "marker"},
    "cmrvlm.config.build.build": {"tree": {"_target_": "os.mkdir"}, "key_path": "model"},
    "cmrvlm.config.build.importlib.import_module": {"name": "evil"},
    "cmrvlm.models.familiarity.Familiarity.load": {"path": "evil.py"},
    "data_modules.storage.cache.StudyCache.fill": {},
    "data_modules.storage.cache.shutil.rmtree": {"path": "precious"},
    "data_modules.storage.entries.CacheFolder.prune": {},
    "data_modules.dicom.ingest.Ingest.run": {},
    "data_modules.parallel.map_in_processes": {},
    "evil.load": {},
    "evil": {},
    "cmrvlm.evil": {},
    "cmrvlm..os.mkdir": {"path": "marker"},
    "cmrvlm.models.assemble.vision_language.__globals__": {},
    "cmrvlm.encoders.conv.ConvEncoder.__init__": {},
    "cmrvlm.encoders.conv.ConvEncoder.__subclasses__": {},
    "cmrvlm.encoders.conv.ConvEncoder.load_state_dict": {},
}


@pytest.fixture(scope="module", autouse=True)
def imported():
    """Import what may be built, so that libraries make their own files before anything is watched."""
    for slot in SLOTS:
        for target in (*allowed_in(slot.replace("*", "mine")), *PROBES):
            try:
                resolve(target, slot)
            except CmrvlmError:
                continue
    config = composed("+debug=fast", *TRAIN)
    build(config["data"]["source"], "data.source")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The folder of an attacker, in which a command was started."""
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "data.txt").write_text("years of work")
    code = "import os\nos.mkdir('marker')\ndef load(*unused, **also): return dict()\n"
    (tmp_path / "evil.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def nothing_happened(place: Path, seen: list[str]) -> None:
    assert seen == []
    assert {path.name for path in place.iterdir()} - {"__pycache__"} == {"precious", "evil.py"}
    assert (place / "precious" / "data.txt").read_text() == "years of work"


@pytest.mark.parametrize("slot", SLOTS)
def test_no_place_calls_what_does_not_belong_there(place, slot, capsys):
    key_path = slot.replace("*", "mine")
    with watched(place) as seen:
        for target, arguments in PROBES.items():
            for partial in (False, True):
                tree = {"_target_": target, "_partial_": partial, **arguments}
                with pytest.raises(CmrvlmError, match="_target_"):
                    build(tree, key_path)
    nothing_happened(place, seen)
    assert capsys.readouterr().out == ""


def targets_in(tree: Any, key_path: str = "") -> Iterator[tuple[str, dict]]:
    """The places of a composed configuration that build something."""
    if isinstance(tree, dict):
        if "_target_" in tree:
            yield key_path, tree
        for key, value in tree.items():
            yield from targets_in(value, f"{key_path}.{key}" if key_path else str(key))
    elif isinstance(tree, list):
        for index, value in enumerate(tree):
            yield from targets_in(value, f"{key_path}[{index}]")


HERE = ("out=here",)
TRAIN = (*HERE, "run_dir=here")
COMPOSED = {
    "stage 1": ("train", (*TRAIN, "+experiment=stage1")),
    "stage 1 with a tower": ("train", (*TRAIN, "+experiment=stage1", "text_encoder=tiny")),
    "stage 2": ("train", (*TRAIN, "+experiment=stage2")),
    "stage 3": ("train", (*TRAIN, "+experiment=stage3", "logger=tensorboard")),
    "other parts": (
        "train",
        (
            *TRAIN,
            "encoder@encoders.sax=unet",
            "encoder@encoders.lge=conv",
            "projector=mlp",
            "adapter=lora",
            "llm=smollm2_135m",
            "optimizer=sgd",
            "schedule=constant",
            "data=phantom_shifted",
            "head=fine",
            "callbacks=ema",
            "logger=wandb",
        ),
    ),
    "tables": ("train", (*TRAIN, "data=manifest", "data.path=t.csv", "adapter=dora")),
    "shards": ("train", (*TRAIN, "data=shards", "data.root=x", "optimizer=adafactor")),
    "evaluate": ("evaluate", (*HERE, "run=x")),
    "predict": ("predict", (*HERE, "run=x", "study=y", "decoding=beams", "masks=tidied")),
    "check": ("check", HERE),
    "shard": ("shard", HERE),
    "cache": ("cache", ()),
    "ingest": ("ingest", (*HERE, "source=x")),
}


# What is built nowhere itself: other places copy it.
COPIED = ("text_encoder.tower",)


@functools.cache
def composition(name: str) -> dict:
    command, overrides = COMPOSED[name]
    return composed(*overrides, name=command)


def spoiled(tree: Any, probe: dict) -> Iterator[Any]:
    """Copies of a tree with a probe in place of one setting each, at any depth, or as a further one."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            if key == "_target_":
                continue
            yield {**tree, key: probe}
            yield {**tree, key: [probe]}
            for inner in spoiled(value, probe):
                yield {**tree, key: inner}
        yield {**tree, "mine": {"inner": probe}}
        yield {**tree, "_args_": [probe]}


@pytest.mark.parametrize("name", COMPOSED)
def test_no_setting_of_a_shipped_configuration_calls_a_probe(place, name):
    """Each place that builds, as it is and with a probe in place of each of its settings."""
    found = [pair for pair in targets_in(composition(name)) if pair[0] not in COPIED]
    assert found
    probe = {"_target_": "builtins.print", "_args_": ["called"]}
    with watched(place) as seen:
        for key_path, tree in found:
            assert allowed_in(key_path), key_path
            checked_targets(tree, key_path)
            count = 0
            for changed in spoiled(copy.deepcopy(tree), probe):
                with pytest.raises(CmrvlmError):
                    build(changed, key_path)
                count += 1
            assert count
    nothing_happened(place, seen)


def test_these_configurations_reach_every_place():
    reached = set()
    for name in COMPOSED:
        for key_path, _ in targets_in(composition(name)):
            reached |= {slot for slot in SLOTS if allowed_in(key_path) == SLOTS[slot]}
    assert set(SLOTS) - reached <= {"transform.augmentation.extra.*"}


def test_every_shipped_target_belongs_to_a_place_or_to_hydra():
    """Read from the files, so that a group that no test composes is among them."""
    files = list(CONF.rglob("*.yaml"))
    targets = {
        target
        for path in files
        for _, tree in targets_in(yaml.safe_load(path.read_text()) or {})
        for target in [tree["_target_"]]
    }
    assert len(targets) > 40
    allowed = ("cmrvlm.", "data_modules.", "torch.optim.", "bitsandbytes.optim.", "lightning.")
    assert all(target.startswith(allowed) for target in targets)
    named = {name for path in files for name in re.findall(r"_target_: *(\S+)", path.read_text())}
    assert {name.strip("},") for name in named} == targets


class Recorder:
    """An object that a checkpoint would call."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self):
        return Path.mkdir, (Path(self.marker),)


# Where the parts of Lightning keep what they get back from a checkpoint.
CHECKPOINT = [
    ("hyper_parameters",),
    ("datamodule_hyper_parameters",),
    ("hparams_name",),
    ("callbacks", "ModelCheckpoint{'monitor': None}"),
    ("callbacks", "mine", "inner"),
    ("loops", "fit_loop", "state_dict"),
    ("loops", "validate_loop"),
    ("lr_schedulers",),
    ("optimizer_states",),
    ("state_dict", "w"),
    ("StudyDataModule",),
    ("pytorch-lightning_version",),
    ("MixedPrecision",),
    ("cmrvlm",),
]


@pytest.mark.parametrize("way", CHECKPOINT, ids=".".join)
def test_no_part_of_a_checkpoint_is_called(place, way):
    content: dict = {"state_dict": {}, "epoch": 0, "global_step": 0, "loops": {}}
    inner = content
    for key in way[:-1]:
        inner = inner.setdefault(key, {})
    inner[way[-1]] = Recorder(place / "marker")
    buffer = io.BytesIO()
    torch.save(content, buffer)
    path = place / "precious" / "x.ckpt"
    path.write_bytes(buffer.getvalue())
    with watched(place) as seen, pytest.raises(CmrvlmError, match=r"x\.ckpt"):
        CheckpointFiles().load_checkpoint(path, weights_only=False)
    path.unlink()
    nothing_happened(place, seen)


PLACES = ["precious", "../elsewhere", "/nowhere/at/all", "~", "a\0b", "x" * 5000, 7, None, ["a"]]


@pytest.mark.parametrize("folder", PLACES, ids=lambda folder: repr(folder)[:20])
def test_an_evaluation_writes_into_no_folder_that_a_run_names(place, folder, tmp_path_factory):
    mine = tmp_path_factory.mktemp("mine")
    config = composed("+debug=fast", "data.source.count=4", "data.source.size=16", *TRAIN)
    config["data"]["cache_dir"] = folder
    run = SimpleNamespace(config=config, folder=place)
    with watched(place, mine) as seen:
        data = evaluation_data(run, {}, str(mine / "cache"))
    assert data.split
    nothing_happened(place, seen)
    assert (mine / "cache").is_dir()


def test_an_evaluation_goes_on_with_the_cache_of_a_run(place, tmp_path_factory):
    mine = tmp_path_factory.mktemp("mine")
    config = composed("+debug=fast", "data.source.count=4", "data.source.size=16", *TRAIN)
    run = SimpleNamespace(config=config, folder=place)
    evaluation_data(run, {}, str(mine / "first"))
    config["data"]["cache_dir"] = str(mine / "first")
    evaluation_data(run, {}, str(mine / "second"))
    assert not (mine / "second").exists()
    evaluation_data(run, {"cache_dir": str(mine / "third")}, str(mine / "second"))
    assert (mine / "third").is_dir()


OVERRIDES = [
    "${oc.create:{_target_: builtins.print}}",
    "${oc.env:HOME}",
    "${hydra:runtime.cwd}",
    "${oc.decode:'{_target_: builtins.print}'}",
    "$${x}",
    "${",
]


@pytest.mark.parametrize("text", OVERRIDES)
@pytest.mark.parametrize("slot", ["model", "data.source", "mix.tasks.a", "callbacks.a", "trainer"])
def test_no_text_becomes_a_target_later(place, slot, text):
    target = {"model": "cmrvlm.models.assemble.dual"}.get(slot, SLOTS.get(slot, ("",))[0])
    if not target:
        target = allowed_in(slot)[0]
    with watched(place) as seen, pytest.raises(CmrvlmError, match="interpolation"):
        build({"_target_": target, "inner": text}, slot)
    nothing_happened(place, seen)
