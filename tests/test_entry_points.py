"""Commands as a shell calls them: one line for an error, few plain lines else."""

import os
import shutil
import subprocess
import sys

import pytest

from cmrvlm.study.files import write_study
from tests.conftest import ROOT


def python(*arguments, cwd=ROOT, **env):
    """Run a module; returns the finished process."""
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-m", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=500,
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        check=False,
    )


@pytest.mark.slow
def test_an_unreadable_study_is_one_line_and_no_traceback(stage3_run, tmp_path):
    broken = tmp_path / "sax.nii.gz"
    broken.write_bytes(b"not nifti")
    done = python(
        "cmrvlm.predict", f"run={stage3_run}", f"study={broken}", f"out={tmp_path / 'out'}"
    )
    assert done.returncode == 1
    assert "cannot be read" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["optimzer.lr=3"], "optimzer"),
        (["encoder@encoders.sax=resnet"], "resnet"),
        (["data=acdc"], "data.root"),
        # These load PyTorch.
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                (["model._target_=webbrowser.open", "+debug=fast"], "model._target_"),
                (["data=acdc", "data.root=/nowhere"], "there is no such folder"),
                (["stage.init_from=/nowhere", "+debug=fast"], "/nowhere"),
                (["optimizer.lr=abc", "+debug=fast"], "optimizer"),
            )
        ),
    ],
)
def test_wrong_group_key_path_or_value_is_one_readable_error(overrides, words, tmp_path, cache):
    done = python("cmrvlm.train", *overrides, f"paths.cache={cache}", f"out={tmp_path}")
    assert done.returncode != 0
    assert words in done.stderr + done.stdout
    assert "Traceback" not in done.stderr + done.stdout


def test_help_and_a_misspelled_key_wait_for_no_heavy_library():
    entries = ("train", "evaluate", "predict", "ingest", "check", "shard", "cache")
    code = f"""
import importlib, sys
for name in {entries}:
    importlib.import_module(f"cmrvlm.{{name}}")
print(sorted({{"torch", "lightning", "monai", "transformers", "peft", "matplotlib", "scipy"}} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_training_from_the_shell_prints_few_plain_lines_and_its_folder(tmp_path, cache):
    done = python(
        "cmrvlm.train",
        "+experiment=stage3",
        "+debug=fast",
        "callbacks.samples=null",
        f"paths.cache={cache}",
        f"out='{tmp_path / 'a b(心)'}'",
    )
    assert done.returncode == 0, done.stderr
    assert "run folder" in done.stdout
    assert "\x1b[" not in done.stdout
    assert len(done.stdout.splitlines()) < 50
    assert (tmp_path / "a b(心)" / "checkpoints" / "last.ckpt").is_file()


@pytest.mark.slow
def test_a_checkpoint_with_odd_characters_in_its_path_is_resumed(stage3_run, tmp_path, cache):
    checkpoint = tmp_path / "a b(心)" / "checkpoints" / "last.ckpt"
    shutil.copytree(stage3_run, tmp_path / "a b(心)")
    again = python(
        "cmrvlm.train",
        "+experiment=stage3",
        "+debug=fast",
        f"paths.cache={cache}",
        f"out={tmp_path / 'next'}",
        f"ckpt_path='{checkpoint}'",
        "trainer.max_steps=3",
    )
    assert again.returncode == 0, again.stderr


@pytest.mark.slow
def test_wandb_works_offline_without_a_login(tmp_path, cache):
    done = python(
        "cmrvlm.train",
        "+experiment=stage3",
        "+debug=fast",
        f"paths.cache={cache}",
        f"out={tmp_path}",
        "logger=wandb",
        WANDB_API_KEY="",
        WANDB_SILENT="true",
    )
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "wandb").glob("offline-run-*"))


@pytest.mark.slow
def test_relative_paths_hold_when_hydra_changes_the_folder(tmp_path, source):
    for study_id in source.study_ids()[:2]:
        write_study(source.load(study_id), tmp_path / "archive" / study_id)
    for chdir in ("false", "true"):
        done = python(
            "cmrvlm.check",
            "data=nifti",
            "data.root=archive",
            "out=page",
            f"hydra.job.chdir={chdir}",
            cwd=tmp_path,
        )
        assert "2 studies" in done.stdout, done.stdout + done.stderr
        assert not (tmp_path / "page" / "page").exists()
