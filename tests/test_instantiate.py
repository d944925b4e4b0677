import pytest
import torch

from cmrvlm.errors import CmrvlmError
from cmrvlm.instantiate import build, check_targets, resolve
from cmrvlm.transforms.frames import SampleFrames


@pytest.mark.parametrize(
    "target",
    ["webbrowser.open", "os.system", "code.InteractiveConsole", "torch.hub.load", "builtins.eval", "cmrvlm.train.Path",
     "cmrvlm.stages.run_folder.yaml.unsafe_load", "cmrvlm.prediction.json.loads", "cmrvlm", "lightning.pytorch.callbacks.nothing"],
)  # fmt: skip
def test_only_objects_defined_in_allowed_modules_are_built(target):
    with pytest.raises(CmrvlmError, match=r"model\._target_"):
        check_targets({"_target_": target, "url": "file:///x"}, "model")


def test_nested_and_listed_targets_are_checked():
    tree = {"a": [{"b": {"_target_": "subprocess.run"}}]}
    with pytest.raises(CmrvlmError, match=r"x\.a\[0\]\.b\._target_"):
        build({"_target_": "cmrvlm.transforms.frames.SampleFrames", **tree}, "x")


def test_allowed_targets_are_built():
    made = build({"_target_": "cmrvlm.transforms.frames.SampleFrames", "frames": 3}, "x")
    assert isinstance(made, SampleFrames)
    assert made.frames == 3
    partial = build({"_target_": "torch.optim.AdamW", "_partial_": True, "lr": 0.5}, "optimizer")
    assert partial([torch.nn.Parameter(torch.zeros(1))]).defaults["lr"] == 0.5
    assert resolve("lightning.pytorch.callbacks.ModelCheckpoint", "x")


def test_wrong_keyword_and_wrong_value_are_readable():
    with pytest.raises(CmrvlmError, match=r"'steps'.*frmes|frmes"):
        build({"_target_": "cmrvlm.transforms.frames.SampleFrames", "frmes": 3}, "steps")
    with pytest.raises(CmrvlmError, match="aorta"):
        build({"_target_": "cmrvlm.tasks.segmentation.SegmentTask", "structure": "aorta"}, "task")


def test_own_error_of_a_nested_part_comes_through():
    inner = {"_target_": "cmrvlm.tasks.segmentation.SegmentTask", "structure": "aorta"}
    with pytest.raises(CmrvlmError, match="aorta"):
        build({"_target_": "cmrvlm.tasks.mixture.Mixture", "tasks": {"a": inner}}, "mix")
