"""What a configuration may build, place by place."""

import importlib
import inspect
import pkgutil
from pathlib import Path

import lightning.pytorch.callbacks
import lightning.pytorch.loggers
import pytest
import torch

import cmrvlm
import data_modules
from cmrvlm.config.build import build, check_plain, checked_targets, resolve, resolve_in_slot
from cmrvlm.config.slots import SLOTS, allowed_in
from cmrvlm.errors import CmrvlmError
from cmrvlm.transforms.frames import SampleFrames

STEP = "transform.preprocessing.steps.frames"
FRAMES = "cmrvlm.transforms.frames.SampleFrames"


@pytest.mark.parametrize(
    "target",
    [
        "webbrowser.open",
        "os.system",
        "code.InteractiveConsole",
        "torch.hub.load",
        "builtins.eval",
        "cmrvlm.train.Path",
        "cmrvlm.runs.run_folder.yaml.unsafe_load",
        "cmrvlm.study.files.json.loads",
        "cmrvlm",
        "lightning.pytorch.callbacks.nothing",
        "data_modules.storage.cache.StudyCache.fill",
        "data_modules.storage.cache.StudyCache",
        "cmrvlm.config.model_source.file_of_package",
        "cmrvlm.stages.training.train",
        "cmrvlm.export.export",
        "cmrvlm.encoders.conv.ConvEncoder",
        "torch.optim.optimizer.Optimizer.__setstate__",
        "lightning.pytorch.trainer.Trainer.fit",
    ],
)
def test_only_what_belongs_in_a_place_is_built_there(target):
    with pytest.raises(CmrvlmError, match=r"model\._target_"):
        checked_targets({"_target_": target, "url": "file:///x"}, "model")


def test_nested_and_listed_targets_are_checked():
    for inner, where in (
        ([{"b": {"_target_": FRAMES}}], r"\.a\[0\]\.b\._target_"),
        ({"_target_": FRAMES}, r"\.a\._target_"),
    ):
        with pytest.raises(CmrvlmError, match=STEP.replace(".", r"\.") + where):
            build({"_target_": FRAMES, "a": inner}, STEP)


@pytest.mark.parametrize(
    "text",
    ["${oc.create:{_target_: torch.hub.load}}", "${data.root}", "a ${oc.env:HOME}", "\\${x}"],
)
def test_what_is_still_to_be_interpolated_is_refused(text):
    """It could make a target after targets were checked."""
    for tree in (
        {"_target_": FRAMES, "frames": text},
        {"_target_": FRAMES, "frames": [{"a": text}]},
        {"_target_": text},
    ):
        with pytest.raises(CmrvlmError, match=r"interpolation|may not be built"):
            build(tree, STEP)
    with pytest.raises(CmrvlmError, match=r"config\.a\[1\]\.b.*interpolation"):
        check_plain({"a": [1, {"b": text}]})


def test_allowed_targets_are_built():
    made = build({"_target_": FRAMES, "frames": 3}, STEP)
    assert isinstance(made, SampleFrames)
    assert made.frames == 3
    partial = build({"_target_": "torch.optim.AdamW", "_partial_": True, "lr": 0.5}, "optimizer")
    assert partial([torch.nn.Parameter(torch.zeros(1))]).defaults["lr"] == 0.5
    assert resolve("lightning.pytorch.callbacks.ModelCheckpoint", "x")


def test_wrong_keyword_and_wrong_value_are_readable():
    with pytest.raises(CmrvlmError, match=r"'transform\.preprocessing\.steps\.frames'.*frmes"):
        build({"_target_": FRAMES, "frmes": 3}, STEP)
    with pytest.raises(CmrvlmError, match="aorta"):
        build(
            {"_target_": "cmrvlm.tasks.segmentation.SegmentTask", "structure": "aorta"},
            "mix.tasks.a",
        )
    for nothing in ({"frames": 3}, [], "text", None):
        with pytest.raises(CmrvlmError, match="Give it a _target_"):
            build(nothing, STEP)


def test_own_error_of_a_nested_part_comes_through():
    inner = {"_target_": "cmrvlm.tasks.segmentation.SegmentTask", "structure": "aorta"}
    with pytest.raises(CmrvlmError, match="aorta"):
        build({"_target_": "cmrvlm.tasks.mixture.Mixture", "tasks": {"a": inner}}, "mix")


def modules_below(package):
    names = [one.name for one in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
    return [importlib.import_module(name) for name in names]


def reachable_names():
    """Every function, class and attribute of a class that a dotted name can lead to."""
    packages = (cmrvlm, data_modules, lightning.pytorch.callbacks, lightning.pytorch.loggers)
    for module in [one for package in packages for one in modules_below(package)]:
        for name, value in list(vars(module).items()):
            yield f"{module.__name__}.{name}", value
            if inspect.isclass(value):
                yield from (
                    (f"{module.__name__}.{name}.{inner}", getattr(value, inner, None))
                    for inner in dir(value)
                )


FACTORIES = {
    "llm.network": {"tiny_language_model", "pretrained_language_model"},
    "llm.tokenizer": {"train_tokenizer", "pretrained_tokenizer"},
    "adapter": {"frozen", "full", "lora"},
    "model": {"vision_language", "dual"},
    "schedule": {"warmup_cosine", "constant"},
    "callbacks.*": {"progress_bar"},
    "logger.*": {"wandb_logger", "csv_logger"},
}
# Beside factories a place takes subclasses of one class; what those are called tells that nothing else slips in.
SUBCLASSES = {
    "data": "StudyDataModule",
    "data.source": "Source",
    "data.source.scanner": "Scanner",
    "transform.preprocessing": "Preprocessing",
    "transform.preprocessing.steps.*": "Step",
    "transform.augmentation": "Augment",
    "transform.augmentation.extra.*": "Artefact",
    "mix": "Mixture",
    "mix.tasks.*": "Task",
    "encoders.*": "Encoder",
    "projector": "Projector",
    "head.mask": "MaskDecoder",
    "head.read_out": "ReadOut",
    "model.contrast": "ContrastiveLoss",
    "model.text_tower": "TextTower",
    "stage": "Stage",
    "optimizer": "Optimizer",
    "schedule": "LRScheduler",
    "trainer": "Trainer",
    "callbacks.*": "Callback",
    "logger.*": "Logger",
    "decoding": "Decode",
    "masks": "MaskReading",
    "check": "CheckRun",
    "shards": "ShardWriter",
    "ingest": "Ingest",
    "cache": "CacheFolder",
}


@pytest.mark.slow  # looks at every name that can be reached
def test_nothing_else_that_can_be_named_can_be_built():
    """Each name that exists, in each place: what is accepted is a class of the place's kind or one of its factories."""
    assert set(SLOTS) == set(FACTORIES) | set(SUBCLASSES)
    names = dict(reachable_names())
    assert "data_modules.storage.cache.StudyCache.fill" in names
    accepted = {slot: set() for slot in SLOTS}
    resolved = {}
    for name in names:
        try:
            resolved[name] = resolve(name, "x")
        except CmrvlmError:
            continue
    for slot in SLOTS:
        place = slot.replace("*", "one")
        kinds = [resolve(kind, "x") for kind in allowed_in(place)]
        classes = tuple(kind for kind in kinds if inspect.isclass(kind))
        for name, found in resolved.items():
            fits = any(found is kind for kind in kinds) or (
                inspect.isclass(found) and issubclass(found, classes)
            )
            try:
                assert resolve_in_slot(name, place) is found
                accepted[slot].add(name)
            except CmrvlmError:
                assert not fits, (slot, name)
    for slot, found in accepted.items():
        for name in found:
            value = resolved[name]
            if inspect.isclass(value):
                assert SUBCLASSES[slot] in {one.__name__ for one in value.__mro__}, (slot, name)
            else:
                assert value.__qualname__ in FACTORIES[slot], (slot, name)
    everything = set().union(*accepted.values())
    assert not [
        name
        for name in everything
        if "StudyCache" in name or "file_of_package" in name or ".main" in name
    ]


def test_a_place_that_builds_nothing_says_so():
    assert allowed_in("encoders.sax.inner") == allowed_in("seed") == allowed_in("mix.tasks") == ()
    with pytest.raises(CmrvlmError, match=r"'seed\._target_'.*Take the _target_ out"):
        build({"_target_": FRAMES}, "seed")
    for slot in SLOTS:
        for name in allowed_in(slot.replace("*", "one")):
            assert resolve(name, slot) is not None
    assert Path(inspect.getfile(resolve(FRAMES, "x"))).name == "frames.py"
