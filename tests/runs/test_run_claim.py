"""A folder whose training was broken off names, as it can be typed, the checkpoint to go on with."""

import os
import re
import subprocess
import zipfile
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import QuotedString

from cmrvlm.errors import CmrvlmError
from cmrvlm.runs.run_claim import CHECKPOINTS, claimed, newest_checkpoint, resume_argument


def write_checkpoint(path, seconds, *, complete=True):
    """Write an archive as `torch.save` does, or half of one, with a time of change."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.pkl", b"content")
    if not complete:
        path.write_bytes(path.read_bytes()[:30])
    os.utime(path, (seconds, seconds))
    return path


def refusal(run, *, resumed=None):
    with (
        pytest.raises(CmrvlmError) as refused,
        claimed(run, overwrite=False, resumed=resumed, first_process=True),
    ):
        raise AssertionError("it was not refused")
    return str(refused.value)


def test_what_was_broken_off_names_its_newest_complete_checkpoint(tmp_path):
    folder = tmp_path / CHECKPOINTS
    write_checkpoint(folder / "step2.ckpt", 100)
    last = write_checkpoint(folder / "last.ckpt", 200)
    write_checkpoint(folder / "step4.ckpt", 300, complete=False)
    write_checkpoint(folder / ".step6.ckpt.77.part", 400)
    assert newest_checkpoint(folder) == last
    assert newest_checkpoint(folder, besides=last) == folder / "step2.ckpt"
    message = refusal(tmp_path)
    assert "broken off" in message
    # At the end and without a full stop, to be copied.
    assert message.endswith(f" ckpt_path={last}")


def test_a_complete_run_is_not_called_broken_off(tmp_path):
    (tmp_path / "model.safetensors").touch()
    message = refusal(tmp_path)
    assert "holds a run already" in message
    assert not re.search("broken off|ckpt_path", message)
    last = write_checkpoint(tmp_path / CHECKPOINTS / "last.ckpt", 100)
    message = refusal(tmp_path)
    assert "broken off" not in message
    assert message.endswith(f" ckpt_path={last}")


def test_only_damaged_checkpoints_leave_nothing_to_name(tmp_path):
    write_checkpoint(tmp_path / CHECKPOINTS / "last.ckpt", 100, complete=False)
    message = refusal(tmp_path)
    assert "broken off" in message
    assert "ckpt_path" not in message
    assert "overwrite=true" in message


def test_a_folder_with_leftovers_alone_is_free(tmp_path):
    part = write_checkpoint(tmp_path / CHECKPOINTS / ".last.ckpt.77.part", 100)
    draft = tmp_path / ".tokenizer.77.part"
    draft.mkdir()
    (draft / "tokenizer.json").touch()
    with claimed(tmp_path, overwrite=False, resumed=None, first_process=True) as folder:
        assert folder == tmp_path
        assert not part.exists()
        assert not draft.exists()


@pytest.mark.parametrize(
    "name",
    ["plain", "a b", "it's", "a=b,c", "$HOME", 'quo"te', "back\\slash", "心脏", "{a: 1}", "!x"],
)
def test_what_to_type_is_read_as_the_path_by_shell_and_hydra(name):
    path = Path("/runs") / name / "last.ckpt"
    typed = subprocess.run(
        ["bash", "-c", f"printf %s {resume_argument(path)}"], capture_output=True, check=True
    )
    (override,) = OverridesParser.create().parse_overrides([typed.stdout.decode()])
    value = override.value()
    if isinstance(value, QuotedString):
        value = value.text
    assert value == str(path)
