"""A run folder keeps its run until another one is whole, belongs to one training, and its checkpoints are never half."""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file

from cmrvlm.errors import CmrvlmError
from cmrvlm.runs.run_folder import load_run
from cmrvlm.stages.base import Stage
from cmrvlm.stages.training import train
from tests.conftest import ROOT, composed
from tests.stages.test_training import QUIET, SMALL
from tests.test_entry_points import python

FAST = (
    "+experiment=stage3",
    "+debug=fast",
    *QUIET,
    *SMALL,
    "callbacks.checkpoint.every_n_train_steps=1",
    "trainer.limit_val_batches=0",
    "trainer.val_check_interval=null",
)


def config_of(folder, cache, *overrides):
    return composed(*FAST, f"paths.cache={cache}", f"out={folder}", f"run_dir={folder}", *overrides)


def content(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory, cache):
    folder = tmp_path_factory.mktemp("finished") / "run"
    train(config_of(folder, cache), folder)
    (folder / "evaluation").mkdir()
    (folder / "evaluation" / "metrics.json").write_text("{}")
    return folder


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def stopping_at(step, monkeypatch, error):
    start = Stage.on_train_batch_start

    def stop(self, *arguments):
        if self.trainer.global_step == step:
            raise error
        start(self, *arguments)

    monkeypatch.setattr(Stage, "on_train_batch_start", stop)


def test_a_folder_with_a_run_is_refused_and_nothing_of_it_changes(run, cache):
    before = content(run)
    with pytest.raises(CmrvlmError, match=r"holds a run already.*overwrite=true"):
        train(config_of(run, cache, "seed=3"), run)
    assert content(run) == before
    (run / "model.safetensors").unlink()  # what was stopped has checkpoints alone
    with pytest.raises(CmrvlmError, match=r"holds a run already.*ckpt_path"):
        train(config_of(run, cache, "seed=3"), run)


@pytest.mark.parametrize(
    "fault",
    [
        "stage.trainable=[encodrs]",
        "trainer.precision=7",
        "optimizer.lr=-1",
        "at step 1",
        "interrupted",
        "stage.init_from=nowhere",
    ],
)
def test_the_earlier_run_stays_when_the_one_that_is_to_replace_it_fails(
    run, cache, monkeypatch, fault
):
    before = content(run)
    overrides = [] if fault in ("at step 1", "interrupted") else [fault]
    if not overrides:
        stopping_at(
            1,
            monkeypatch,
            KeyboardInterrupt() if fault == "interrupted" else CmrvlmError("it broke"),
        )
    with pytest.raises(CmrvlmError):
        train(config_of(run, cache, "seed=3", "overwrite=true", *overrides), run)
    after = content(run)
    assert {name: one for name, one in after.items() if not name.startswith(".new/")} == before
    load_run(run)


def test_a_run_is_replaced_whole_and_nothing_of_it_is_left(run, cache):
    before = load_file(run / "model.safetensors")
    train(config_of(run, cache, "seed=3", "overwrite=true"), run)
    after = load_file(run / "model.safetensors")
    assert any(not torch.equal(after[key], before[key]) for key in before)
    assert not (run / "evaluation").exists()
    assert not [path.name for path in run.iterdir() if path.name in (".new", ".old")]
    assert load_run(run).config["run_dir"] == str(run)
    assert list((run / "checkpoints").glob("*.ckpt"))
    assert (run / "logs").is_dir() or "logger=[]" in QUIET


def test_a_replacement_that_was_interrupted_goes_on_and_takes_the_place(run, cache, monkeypatch):
    with monkeypatch.context() as patch:
        stopping_at(1, patch, KeyboardInterrupt())
        with pytest.raises(CmrvlmError, match=r"interrupted.*ckpt_path=(\S+last\.ckpt)") as stopped:
            train(config_of(run, cache, "seed=3", "overwrite=true"), run)
    checkpoint = stopped.value.remedy.split("ckpt_path=")[1].rstrip(".")
    train(config_of(run, cache, "seed=3", "overwrite=true", f"ckpt_path={checkpoint}"), run)
    whole = run.parent / "whole"
    train(config_of(whole, cache, "seed=3"), whole)
    one, two = (load_file(folder / "model.safetensors") for folder in (run, whole))
    assert all(torch.equal(one[key], two[key]) for key in two)
    assert not (run / ".new").exists()


def test_a_finished_run_goes_on_in_its_own_folder(run, cache):
    before = load_file(run / "model.safetensors")
    train(
        config_of(
            run, cache, "trainer.max_steps=3", f"ckpt_path={run / 'checkpoints' / 'last.ckpt'}"
        ),
        run,
    )
    after = load_file(run / "model.safetensors")
    assert any(not torch.equal(after[key], before[key]) for key in before)


def test_one_training_a_folder(tmp_path, cache):
    folder = tmp_path / "run"
    folder.mkdir()
    with (
        FileLock(folder / ".lock"),
        pytest.raises(CmrvlmError, match="another training writes into this folder"),
    ):
        train(config_of(folder, cache, "overwrite=true"), folder)
    assert content(folder) == {}


@pytest.mark.slow  # a training in a process of its own
def test_the_command_refuses_a_folder_and_leaves_its_result(run, cache):
    (run / "result.json").write_text(json.dumps({"overrides": [], "status": "done", "metric": 1.0}))
    done = python("cmrvlm.train", *FAST, f"paths.cache={cache}", f"out={run}")
    assert done.returncode == 1
    assert "holds a run already" in done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads((run / "result.json").read_text())["status"] == "done"
    assert not (run / "traceback.txt").exists()


def test_a_damaged_checkpoint_is_named_with_the_newest_whole_one(run, cache):
    last, other = run / "checkpoints" / "last.ckpt", run / "checkpoints" / "step1.ckpt"
    shutil.copy(last, other)
    whole = last.read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], b"PK" + bytes(2000), b"{}"):
        last.write_bytes(damaged)
        with pytest.raises(
            CmrvlmError,
            match=rf"last\.ckpt.*damaged.*ckpt_path={other}|last\.ckpt.*damaged.*ckpt_path=.*step",
        ):
            train(
                config_of(run.parent / "on", cache, "trainer.max_steps=3", f"ckpt_path={last}"),
                run.parent / "on",
            )
    with pytest.raises(CmrvlmError, match=r"no such checkpoint.*ckpt_path="):
        train(
            config_of(run.parent / "on", cache, f"ckpt_path={run / 'checkpoints' / 'none.ckpt'}"),
            run.parent / "on",
        )


def test_a_full_disk_is_named_and_leaves_the_checkpoint_before(tmp_path, cache, monkeypatch):
    folder, save = tmp_path / "run", torch.save

    def full(content, path):
        if content["global_step"] == 2:
            Path(path).write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        save(content, path)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(
        CmrvlmError, match=r"checkpoints/\S+\.ckpt.*No space left.*needs about \d+ MB"
    ):
        train(config_of(folder, cache, "trainer.max_steps=3"), folder)
    assert torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 1
    assert not list(folder.rglob(".*.part"))


def test_what_a_killed_run_left_half_written_is_cleared_at_the_next_start(tmp_path, cache):
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    leftovers = [
        folder / ".model.safetensors.77.part",
        folder / "checkpoints" / ".last.ckpt.77.part",
    ]
    for path in leftovers:
        path.write_bytes(bytes(1000))
    train(config_of(folder, cache), folder)
    assert not any(path.exists() for path in leftovers)


@pytest.mark.slow  # kills several trainings
@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="no second file system")
def test_a_checkpoint_is_never_half_though_temporary_files_lie_elsewhere(tmp_path, cache):
    """Watched while it is written again and again, and then the run is killed."""
    folder, elsewhere = tmp_path / "run", Path("/dev/shm") / f"cmrvlm-{os.getpid()}"
    elsewhere.mkdir()
    large = ("llm.network.hidden_size=160", "projector.hidden=256", "head.read_out.hidden=256")
    process = subprocess.Popen(
        [
            sys.executable,
            "-W",
            "ignore",
            "-m",
            "cmrvlm.train",
            *FAST,
            *large,
            "trainer.max_steps=400",
            f"paths.cache={cache}",
            f"out={folder}",
        ],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(elsewhere)},
    )
    last, sizes, end = folder / "checkpoints" / "last.ckpt", [], time.monotonic() + 90
    try:
        while (
            process.poll() is None
            and time.monotonic() < end
            and (len(sizes) < 4000 or len(set(sizes)) < 1)
        ):
            if last.exists():
                sizes.append(last.stat().st_size)
            time.sleep(0.001)
        assert process.poll() is None, "the training ended before it was watched"
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(elsewhere)
    assert min(sizes) > 0.9 * max(sizes)
    assert torch.load(last, weights_only=True)["global_step"] > 0


def test_what_is_of_no_run_stays_where_it_is(run, finished, cache):
    """Another run in a folder of it, notes, and folders whose names a replacement could want."""
    shutil.copytree(finished, run / "stage4")
    for name in ("new/notes.txt", "old/notes.txt", "notes.txt"):
        (run / name).parent.mkdir(exist_ok=True)
        (run / name).write_text("mine")
    before = content(run / "stage4")
    train(config_of(run, cache, "seed=3", "overwrite=true"), run)
    assert content(run / "stage4") == before
    assert all(
        (run / name).read_text() == "mine"
        for name in ("new/notes.txt", "old/notes.txt", "notes.txt")
    )


@pytest.mark.parametrize(
    "renames",
    [0, 6, 12, *(pytest.param(one, marks=pytest.mark.slow) for one in (3, 9, 15, 18, 21))],
)
def test_a_replacement_killed_amid_its_renames_is_ended_at_the_next_start(
    run, cache, monkeypatch, renames
):
    class Killed(BaseException):
        pass

    done, rename = [], Path.rename

    def counted(self, to):
        if len(done) == renames:
            raise Killed
        done.append(to)
        return rename(self, to)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", counted)
        with contextlib.suppress(Killed):
            train(config_of(run, cache, "seed=3", "overwrite=true"), run)
    with pytest.raises(CmrvlmError, match="holds a run already"):
        train(config_of(run, cache, "seed=4"), run)
    assert load_run(run).config["seed"] == 3
    assert not [path.name for path in run.iterdir() if path.name in (".new", ".old")]


def test_a_link_in_the_place_of_a_replacement_is_not_followed(run, cache, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "data.txt").write_text("mine")
    for name in (".new", ".old"):
        (run / name).symlink_to(elsewhere)
    train(config_of(run, cache, "seed=3", "overwrite=true"), run)
    assert [path.name for path in elsewhere.iterdir()] == ["data.txt"]
    assert load_run(run).config["seed"] == 3


def test_a_checkpoint_outside_of_its_run_is_refused(run, cache, tmp_path):
    shutil.copy(run / "checkpoints" / "last.ckpt", tmp_path / "x.ckpt")
    with pytest.raises(CmrvlmError, match=r"x\.ckpt.*outside of its run"):
        train(
            config_of(tmp_path / "on", cache, f"ckpt_path={tmp_path / 'x.ckpt'}"), tmp_path / "on"
        )
