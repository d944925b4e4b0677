"""Attempts to run code, write or delete by files of others: none does, and each ends in one clear error or in nothing."""

import io
import json
import os
import pickle
import shutil
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from cmrvlm.errors import CmrvlmError
from cmrvlm.language_model.tokenizer import load_tokenizer, pretrained_tokenizer
from cmrvlm.runs.checkpoint_files import CheckpointFiles
from cmrvlm.runs.fingerprints import FINGERPRINTS, write_fingerprints
from cmrvlm.runs.lineage import read_lineage
from cmrvlm.runs.run_folder import load_run
from cmrvlm.study.codec import load_arrays, study_from_files
from data_modules.split import read_split
from tests.conftest import ROOT
from tests.watch import watched

RUN = ROOT / "tests" / "runs" / "run_before_moves"


class Bomb:
    """What a pickle of an attacker holds."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


class Theirs:
    """A run of another person, with what must not happen beside it."""

    def __init__(self, root: Path) -> None:
        self.root = root / "theirs"
        self.run = self.root / "run"
        shutil.copytree(RUN, self.run)
        self.precious = root / "precious"
        self.precious.mkdir()
        (self.precious / "data.txt").write_text("years of work")
        self.marker = root / "marker"
        code = f"import os\nos.mkdir({str(self.marker)!r})\n"
        for name in ("evil.py", "hubconf.py", "mine.py", "sitecustomize.py"):
            (self.root / name).write_text(code + "class Mine: pass\ndef load(): return 1\n")
            (self.run / name).write_text(code)

    def seal(self) -> None:
        """Write matching fingerprints, as whoever writes a run can."""
        write_fingerprints(self.run)

    def config(self, change: Callable[[dict], None]) -> None:
        path = self.run / "config.yaml"
        config = yaml.safe_load(path.read_text())
        change(config)
        path.write_text(yaml.safe_dump(config, allow_unicode=True))
        self.seal()

    def put(self, key: str, value: object) -> None:
        def change(config: dict) -> None:
            *way, last = key.split(".")
            place = config
            for name in way:
                place = place[name]
            place[last] = value

        self.config(change)

    def json(self, name: str, **values: object) -> None:
        path = self.run / name
        content = json.loads(path.read_text()) if path.is_file() else {}
        path.write_text(json.dumps(content | values))

    def load(self) -> object:
        return load_run(self.run)


@pytest.fixture(scope="module", autouse=True)
def loaded():
    """Load a run once, so that libraries make their own files before anything is watched."""
    load_run(RUN)


@pytest.fixture
def theirs(tmp_path, monkeypatch):
    place = Theirs(tmp_path)
    monkeypatch.chdir(place.root)
    monkeypatch.syspath_prepend(str(place.root))
    # Whoever is asked whether to run code may say yes.
    monkeypatch.setattr("builtins.input", lambda *unused: "y")
    return place


def harmless(theirs: Theirs, attempt: Callable[[Theirs], object], *, refused: bool = True) -> None:
    """Make an attempt and assert that it did nothing, and that it was refused by one error."""
    prepared = attempt(theirs)
    with watched(theirs.root) as seen:
        if refused:
            with pytest.raises(CmrvlmError) as error:
                prepared()
            assert len(str(error.value)) < 2000
        else:
            prepared()
    assert seen == []
    assert not theirs.marker.exists()
    assert (theirs.precious / "data.txt").read_text() == "years of work"
    assert "CMRVLM_EVIL" not in os.environ


RMTREE = {"_target_": "shutil.rmtree", "path": "../precious"}
# A key of the configuration, and what an attacker writes there.
CONFIG = {
    "rmtree as the model": ("model", RMTREE),
    "rmtree through a module of ours": (
        "model",
        {**RMTREE, "_target_": "cmrvlm.export.shutil.rmtree"},
    ),
    "rmtree as an encoder": ("encoders.sax", RMTREE),
    "a command": ("model", {"_target_": "os.system", "command": "touch ../marker"}),
    "a process": ("adapter", {"_target_": "subprocess.Popen", "args": ["touch", "../marker"]}),
    "eval": ("projector", {"_target_": "builtins.eval", "source": "1"}),
    "exec through Hydra": ("projector", {"_target_": "hydra.utils.call", "config": RMTREE}),
    "a method of Hydra": ("model", {"_target_": "hydra.utils.get_method", "path": "os.mkdir"}),
    "instantiate": ("model", {"_target_": "hydra.utils.instantiate", "config": RMTREE}),
    "torch.hub": (
        "llm.network",
        {"_target_": "torch.hub.load", "repo_or_dir": ".", "model": "load", "source": "local"},
    ),
    "torch.load": ("model", {"_target_": "torch.load", "f": "bomb.pt", "weights_only": False}),
    "pickle": ("mix", {"_target_": "pickle.loads", "data": "x"}),
    "a method of an object": (
        "encoders.sax",
        {"_target_": "data_modules.storage.cache.StudyCache.fill", "self": RMTREE},
    ),
    "a class method": (
        "model",
        {"_target_": "cmrvlm.inference.cmrvlm.CMRVLM.from_pretrained", "run": "."},
    ),
    "an alternative constructor": (
        "model",
        {"_target_": "cmrvlm.models.familiarity.Familiarity.load", "path": "x"},
    ),
    "the training command": ("model", {"_target_": "cmrvlm.train.main"}),
    "a training": ("model", {"_target_": "cmrvlm.stages.training.train", "run": "../precious"}),
    "an export": ("model", {"_target_": "cmrvlm.export.export", "out": "../precious"}),
    "pruning of the cache": (
        "model",
        {"_target_": "data_modules.storage.entries.CacheFolder", "root": "../precious"},
    ),
    "a writer of shards": (
        "transform.preprocessing.steps.frames",
        {"_target_": "data_modules.storage.shards.ShardWriter", "out": "../precious"},
    ),
    "a trainer's method": ("model", {"_target_": "lightning.pytorch.trainer.Trainer.fit"}),
    "a callback in another place": (
        "encoders.sax",
        {"_target_": "lightning.pytorch.callbacks.LambdaCallback", "setup": RMTREE},
    ),
    "an optimizer in another place": ("model", {"_target_": "torch.optim.AdamW", "lr": 1}),
    "a module beside the run": ("model", {"_target_": "evil.load"}),
    "a dunder": ("model", {"_target_": "cmrvlm.models.assemble.vision_language.__globals__"}),
    "a parent of a class": (
        "encoders.sax",
        {"_target_": "cmrvlm.encoders.conv.ConvEncoder.__mro__"},
    ),
    "a nested target": (
        "encoders.sax.extra",
        {"_target_": "os.mkdir", "path": "../marker"},
    ),
    "a target in a list": ("mix.languages", [{"_target_": "os.mkdir", "path": "../marker"}]),
    "a target in a value": (
        "transform.preprocessing.steps.frames.frames",
        {"_target_": "os.mkdir", "path": "../marker"},
    ),
    "a target that is a list": ("model", {"_target_": ["os.mkdir"]}),
    "a target that is a number": ("model", {"_target_": 7}),
    "an empty target": ("model", {"_target_": ""}),
    "dots": ("model", {"_target_": "....."}),
    "a relative target": ("model", {"_target_": "..evil.load"}),
    "a partial function": (
        "projector",
        {"_target_": "functools.partial", "_args_": ["os.mkdir", "../marker"]},
    ),
    "arguments by position": ("model._args_", ["../marker"]),
    "a recursive switch": ("model._recursive_", {"_target_": "os.mkdir"}),
    "an environment variable": ("seed", "${oc.env:HOME}"),
    "a created node": ("model", "${oc.create:{_target_: os.mkdir, path: ../marker}}"),
    "a decoded node": ("model", "${oc.decode:'{_target_: os.mkdir}'}"),
    "a resolver of Hydra": ("seed", "${hydra:runtime.cwd}"),
    "a resolver of someone's own": ("seed", "${eval:__import__('os')}"),
    "an interpolation in a key": ("mix.weights", {"${oc.env:HOME}": 1}),
    "an interpolation inside a text": ("mix.languages", ["a${now:%Y}"]),
    "a kernel of the hub": ("llm.network.attention_implementation", "owner/kernel"),
    "a local package": (
        "llm.network",
        {
            "_target_": "cmrvlm.language_model.pretrained.pretrained_language_model",
            "package": "evil",
        },
    ),
    "a data type that is a function": (
        "llm.network",
        {
            "_target_": "cmrvlm.language_model.pretrained.pretrained_language_model",
            "path": ".",
            "dtype": "load",
        },
    ),
    "an encoder without end": ("encoders.sax.channels", 10**9),
    "a network without end": ("llm.network.layers", 10**9),
    "a network as wide as memory": ("llm.network.hidden_size", 10**9),
    "a projector without end": ("projector.hidden", 10**12),
}


@pytest.mark.parametrize("name", CONFIG)
def test_settings_of_a_run_do_nothing_but_build_the_network(theirs, name):
    key, value = CONFIG[name]

    def attempt(theirs: Theirs) -> Callable[[], object]:
        theirs.put(key, value)
        return theirs.load

    harmless(theirs, attempt)


# What changes nothing: the objects that are built stay the same.
HARMLESS = {
    "an unknown conversion": ("model._convert_", "object"),
    "a title with markup": ("out", "[/red]\x1b[2J"),
    "a folder of the cache elsewhere": ("data.cache_dir", "../precious"),
    "a folder of results elsewhere": ("run_dir", "../precious"),
    "a checkpoint elsewhere": ("ckpt_path", "../precious/data.txt"),
    "callbacks": ("callbacks", {"evil": RMTREE}),
    "loggers": ("logger", {"evil": RMTREE}),
    "a trainer": ("trainer.plugins", [RMTREE]),
    "an optimizer": ("optimizer", RMTREE),
    "a stage": ("stage", RMTREE),
    "data": ("data.source", RMTREE),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_loading_does_not_need_is_not_built(theirs, name):
    key, value = HARMLESS[name]

    def attempt(theirs: Theirs) -> Callable[[], object]:
        theirs.put(key, value)
        return theirs.load

    harmless(theirs, attempt, refused=False)


@pytest.mark.parametrize(
    ("file", "values"),
    [
        ("tokenizer_config.json", {"tokenizer_class": "os.system"}),
        ("tokenizer_config.json", {"chat_template": "{{ 1/0 }}", "extra_special_tokens": {}}),
        ("added_tokens.json", {}),
    ],
)
def test_settings_of_a_tokenizer_name_no_code(theirs, file, values):
    theirs.json(f"tokenizer/{file}", **values)
    theirs.seal()
    harmless(theirs, lambda theirs: theirs.load, refused=False)


# Texts put in front of the configuration.
YAML = {
    "an object": "evil: !!python/object/apply:os.mkdir [../marker]\n",
    "a new object": "evil: !!python/object/new:os.mkdir [../marker]\n",
    "a name": "evil: !!python/name:os.mkdir\n",
    "a module": "evil: !!python/module:evil\n",
    "a tuple": "evil: !!python/tuple [1]\n",
    "a tag of someone's own": "evil: !load evil\n",
    "an alias": "a: &a {x: 1}\nb: *a\n",
    "an alias of itself": "a: &a [*a]\n",
    "a merged alias": "a: &a {_target_: os.mkdir}\nb: {<<: *a}\n",
    "a billion": "a0: &a0 [x, x, x]\n"
    + "".join(f"a{i + 1}: &a{i + 1} [{', '.join([f'*a{i}'] * 9)}]\n" for i in range(30)),
    "a nest": f"evil: {'[' * 3000}{']' * 3000}\n",
    "a number without end": f"evil: {'9' * 6000}\n",
    "a text without end": f"evil: {'x' * 2_000_000}\n",
    "two documents": "a: 1\n---\n",
    "a list as a key": "? [a]\n: 1\n",
    "bytes": "evil: !!binary aGk=\n",
    "a set": "evil: !!set {a}\n",
    "pairs": "evil: !!pairs [x: {_target_: os.mkdir}]\n",
    "a date": "evil: 2020-01-01\n",
    "control characters": "evil: \x1b[2J\x07\n",
    "a list": "- _target_: os.mkdir\n",
    "nothing": None,
}


@pytest.mark.parametrize("name", YAML)
def test_what_yaml_can_write_is_refused(theirs, name):
    def attempt(theirs: Theirs) -> Callable[[], object]:
        path = theirs.run / "config.yaml"
        text = YAML[name]
        whole = "" if text is None else text + path.read_text()
        path.write_bytes(whole.encode())
        return theirs.load

    harmless(theirs, attempt)


def _pickled(theirs: Theirs) -> bytes:
    return pickle.dumps(Bomb(theirs.marker))


def _torch_file(theirs: Theirs, content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def _zip_bomb() -> bytes:
    """An archive of a kilobyte that claims 200 MB of weights."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(1000))
        archive.writestr("archive/data/0", bytes(20_000_000))
    return buffer.getvalue()


def _tar(theirs: Theirs) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in ("../marker", str(theirs.marker), "x"):
            member = tarfile.TarInfo(name)
            member.type = tarfile.SYMTYPE if name == "x" else tarfile.REGTYPE
            member.linkname = str(theirs.precious)
            archive.addfile(member)
    return buffer.getvalue()


WEIGHTS = {
    "a pickle": _pickled,
    "a file of PyTorch": lambda theirs: _torch_file(theirs, Bomb(theirs.marker)),
    "a script": lambda theirs: b"#!/bin/sh\ntouch ../marker\n",
    "a header larger than the file": lambda theirs: struct.pack("<Q", 2**62) + b"{}",
    "a tensor beyond the file": lambda theirs: _claiming([10**9], 10**9),
    "a negative offset": lambda theirs: _claiming([1], -4),
    "a nest": lambda theirs: _header(b'{"a":' * 5000),
    "an archive": lambda theirs: _zip_bomb(),
    "a tape": _tar,
    "nothing": lambda theirs: b"",
}


def _header(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def _claiming(shape: list[int], end: int) -> bytes:
    entry = {"w": {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}}
    return _header(json.dumps(entry).encode()) + bytes(4)


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_are_data_alone(theirs, name):
    def attempt(theirs: Theirs) -> Callable[[], object]:
        (theirs.run / "model.safetensors").write_bytes(WEIGHTS[name](theirs))
        theirs.seal()
        return theirs.load

    harmless(theirs, attempt)


CHECKPOINTS = {
    "a pickle": _pickled,
    "a file of PyTorch": lambda theirs: _torch_file(theirs, Bomb(theirs.marker)),
    "hyper parameters": lambda theirs: _torch_file(
        theirs, {"state_dict": {}, "hyper_parameters": Bomb(theirs.marker)}
    ),
    "parameters of the data": lambda theirs: _torch_file(
        theirs, {"state_dict": {}, "datamodule_hyper_parameters": Bomb(theirs.marker)}
    ),
    "the state of a callback": lambda theirs: _torch_file(
        theirs, {"state_dict": {}, "callbacks": {"x": Bomb(theirs.marker)}}
    ),
    "a class": lambda theirs: _torch_file(theirs, {"state_dict": {}, "loops": Bomb}),
    "an archive": lambda theirs: _zip_bomb(),
    "a tape": _tar,
    "a list": lambda theirs: _torch_file(theirs, [1, 2]),
    "a tensor": lambda theirs: _torch_file(theirs, torch.zeros(2)),
    "nothing of Lightning": lambda theirs: _torch_file(theirs, {"x": 1}),
    "no weights": lambda theirs: _torch_file(theirs, {"state_dict": [1]}),
    "nothing": lambda theirs: b"",
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_checkpoints_are_data_alone(theirs, name):
    def attempt(theirs: Theirs) -> Callable[[], object]:
        path = theirs.run / "x.ckpt"
        path.write_bytes(CHECKPOINTS[name](theirs))
        return lambda: CheckpointFiles().load_checkpoint(path, weights_only=False)

    harmless(theirs, attempt)


MINE = {"auto_map": {"AutoTokenizer": ["mine.Mine", "mine.Mine"]}, "tokenizer_class": "Mine"}
REMOTE = {"auto_map": {"AutoTokenizer": ["owner/repo--mine.Mine", None]}, "tokenizer_class": "Mine"}
TOKENIZERS = {
    "a class of its own": ("tokenizer_config.json", MINE),
    "a class on the hub": ("tokenizer_config.json", REMOTE),
    "a list": ("tokenizer.json", None),
    "no model": ("tokenizer.json", {"model": {"type": "Evil"}}),
    "a regular expression without end": (
        "tokenizer.json",
        {
            "pre_tokenizer": {
                "type": "Split",
                "pattern": {"Regex": "(" * 500},
                "behavior": "Isolated",
                "invert": False,
            }
        },
    ),
    "a normalizer of its own": ("tokenizer.json", {"normalizer": {"type": "Mine"}}),
    "tokens without names": ("tokenizer.json", {"added_tokens": [{"id": -1}]}),
}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_tokenizers_are_data_alone(theirs, name):
    file, values = TOKENIZERS[name]
    path = theirs.run / "tokenizer" / file
    if values is None:
        path.write_text("[]")
    else:
        path.write_text(json.dumps(json.loads(path.read_text()) | values))
    shutil.copy(theirs.root / "mine.py", path.parent / "mine.py")
    theirs.seal()
    for load in (
        lambda: load_tokenizer(theirs.run / "tokenizer"),
        lambda: pretrained_tokenizer([], str(theirs.run / "tokenizer")),
        theirs.load,
    ):
        harmless(theirs, lambda theirs, load=load: load)


TEMPLATES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{% for i in range(10**12) %}x{% endfor %}",
    "{{ cycler.__init__.__globals__.os.mkdir('../marker') }}",
]


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_template_of_chats_is_never_rendered(theirs, template):
    def attempt(theirs: Theirs) -> Callable[[], object]:
        theirs.json("tokenizer/tokenizer_config.json", chat_template=template)
        (theirs.run / "tokenizer" / "chat_template.jinja").write_text(template)
        theirs.seal()
        return theirs.load

    harmless(theirs, attempt, refused=False)


NAMES = [
    "config.yaml",
    "model.safetensors",
    "tokenizer/tokenizer.json",
    "labels.json",
    "preprocessing.json",
    FINGERPRINTS,
]


@pytest.mark.parametrize("kind", ["pipe", "folder", "loop", "device", "dangling"])
@pytest.mark.parametrize("file", NAMES)
def test_what_is_no_file_is_never_opened(theirs, file, kind):
    """Reading a pipe, or an endless device, would never return."""

    def attempt(theirs: Theirs) -> Callable[[], object]:
        theirs.seal()
        path = theirs.run / file
        path.unlink()
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        else:
            target = {"loop": path, "device": "/dev/zero", "dangling": "nowhere"}[kind]
            path.symlink_to(target)
        return theirs.load

    harmless(theirs, attempt)


ARRAYS = {
    "an array of objects": lambda theirs: np.array([Bomb(theirs.marker)], dtype=object),
    "a record with an object": lambda theirs: np.zeros(1, dtype=[("x", object)]),
}


@pytest.mark.parametrize("name", [*ARRAYS, "a pickle", "a claim", "text"])
def test_arrays_of_the_cache_and_of_shards_are_data_alone(theirs, name):
    buffer = io.BytesIO()
    if name in ARRAYS:
        np.save(buffer, ARRAYS[name](theirs), allow_pickle=True)
    elif name == "a pickle":
        buffer.write(_pickled(theirs))
    elif name == "a claim":
        np.lib.format.write_array_header_1_0(
            buffer, {"descr": "<f4", "fortran_order": False, "shape": (10**6, 10**6)}
        )
    else:
        buffer.write(b"__import__('os').mkdir('../marker')")
    meta = {
        "study_id": "../../x",
        "patient_id": "p",
        "synthetic": False,
        "labels": {"diseases": None, "boxes_mm": {}, "questions": []},
        "series": {"sax": {"affine": np.eye(4).tolist(), "has_mask": False}},
    }
    folder = theirs.root / "entry"
    folder.mkdir()
    (folder / "sax.npy").write_bytes(buffer.getvalue())
    (folder / "study.json").write_text(json.dumps(meta))
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    harmless(theirs, lambda theirs: lambda: load_arrays(folder))
    harmless(theirs, lambda theirs: lambda: study_from_files(files))


SPLITS = [
    b"",
    b"[]",
    b'{"train": 3}',
    b'{"train": [{}], "val": [], "test": []}',
    b"\x80\x04N.",
    b"{",
]


@pytest.mark.parametrize("content", [*SPLITS, b'{"a":' * 5000])
@pytest.mark.parametrize("name", ["lineage.json", "split.json"])
def test_lists_of_patients_are_refused_by_name(theirs, content, name):
    def attempt(theirs: Theirs) -> Callable[[], object]:
        (theirs.run / name).write_bytes(content)
        if name == "lineage.json":
            return lambda: read_lineage(theirs.run, {})
        return lambda: read_split(theirs.run / name)

    harmless(theirs, attempt)


@pytest.mark.parametrize("kind", [torch.int32, torch.bool, torch.uint8])
def test_whole_numbers_are_no_weights(theirs, kind):
    def attempt(theirs: Theirs) -> Callable[[], object]:
        path = theirs.run / "model.safetensors"
        weights = load_file(path)
        name = next(iter(weights))
        save_file(weights | {name: weights[name].to(kind)}, path)
        theirs.seal()
        return theirs.load

    harmless(theirs, attempt)
