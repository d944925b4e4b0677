"""NaN and infinity are refused by name wherever they come in, and nothing ends well that has one in it."""

import csv
import json
import math
import shutil

import nibabel as nib
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from cmrvlm.errors import CmrvlmError
from cmrvlm.predict import predict
from cmrvlm.runs.fingerprints import write_fingerprints
from cmrvlm.runs.run_folder import load_run
from cmrvlm.stages.base import Stage
from cmrvlm.stages.training import train
from cmrvlm.study.files import read_study, write_study
from cmrvlm.study.series_files import read_nifti
from cmrvlm.study.study import StudyLabels
from cmrvlm.tasks.mixture import Mixture
from data_modules.checking.run import CheckRun
from data_modules.sources.manifest import ManifestSource
from data_modules.sources.nifti import NiftiSource
from data_modules.sources.phantom.source import PhantomSource
from tests.conftest import composed
from tests.language_model.test_pretrained import FAMILIES, published_tokenizer
from tests.stages.test_training import SMALL
from tests.test_entry_points import python

QUIET = (
    *SMALL,
    "callbacks.samples=null",
    "callbacks.learning_rate=null",
    "callbacks.checkpoint.every_n_train_steps=1",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory, cache):
    folder = tmp_path_factory.mktemp("finite") / "run"
    train(
        composed(
            "+experiment=stage3",
            "+debug=fast",
            *QUIET,
            f"paths.cache={cache}",
            f"out={folder}",
            f"run_dir={folder}",
        ),
        folder,
    )
    return folder


@pytest.fixture
def archive(tmp_path):
    """Eight studies in NIfTI, every fourth to be spoiled by a test."""
    source = PhantomSource(count=8, size=48, slices=3, frames=4, spacing_mm=(3.9, 4.1))
    for study_id in source.study_ids():
        write_study(source.load(study_id), tmp_path / "archive" / study_id)
    return tmp_path / "archive"


def spoil(path, value):
    """One voxel of a file, or all of them, become another value."""
    image = nib.load(path)
    data = np.array(image.dataobj, dtype=np.float64)
    if value == "constant":
        data[:] = 7
    else:
        data[3, 3, 1] = value
    nib.save(nib.Nifti1Image(data, image.affine, dtype=np.float64), path)


def archive_training(archive, cache, run, *overrides):
    return composed(
        "+experiment=stage3",
        "data=nifti",
        f"data.root={archive}",
        "trainer.max_steps=2",
        *QUIET,
        "data.batch_size=4",
        "data.shares={val:0,test:0.25}",
        f"paths.cache={cache}",
        f"out={run}",
        "transform.preprocessing.steps.grid.size=[null,48,48]",
        f"run_dir={run}",
        *overrides,
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300, "constant"])
def test_an_image_that_is_not_finite_or_empty_is_refused_by_name(run, archive, tmp_path, value):
    study = sorted(archive.iterdir())[2]
    spoil(study / "lge.nii.gz", value)
    named = r"lge" if value == "constant" else r"lge\.nii\.gz"
    with pytest.raises(CmrvlmError, match=named):
        read_study(study)
    with pytest.raises(CmrvlmError, match=named):
        predict(composed(f"run={run}", f"study={study}", f"out={tmp_path / 'out'}", name="predict"))
    with pytest.raises(CmrvlmError, match=rf"1 of 8 studies.*{named}"):
        train(archive_training(archive, tmp_path / "cache", tmp_path / "run"), tmp_path / "run")
    found = CheckRun(NiftiSource(str(archive)), tmp_path / "check", workers=1)
    faults = [fault for one in found.run() for fault in one.faults if fault.level == "error"]
    assert {fault.study for fault in faults} == {study.name}


def test_a_mask_that_is_not_finite_is_refused(archive):
    study = sorted(archive.iterdir())[0]
    spoil(study / "sax_mask.nii.gz", np.nan)
    with pytest.raises(CmrvlmError, match=r"sax_mask\.nii\.gz.*NaN"):
        NiftiSource(str(archive)).load(study.name)


@pytest.mark.parametrize(
    ("where", "field"),
    [
        (("series", "sax", "frame_times_ms"), "frame_times_ms"),
        (("series", "sax", "affine"), "affine"),
        (("labels", "demographics", "height_cm"), "height_cm"),
        (("labels", "measurements", "lvef_percent"), "lvef_percent"),
    ],
)
def test_study_json_with_a_number_not_finite_is_named_null_unknown(archive, where, field):
    study = sorted(archive.iterdir())[0]
    whole = json.loads((study / "study.json").read_text())
    for value in (math.nan, math.inf, None):
        told = json.loads(json.dumps(whole))
        place = told
        for name in where[:-1]:
            place = place[name]
        plain = isinstance(place[where[-1]], float)
        place[where[-1]] = (
            value if plain else None if value is None else [value] * len(place[where[-1]])
        )
        (study / "study.json").write_text(json.dumps(told))
        source = NiftiSource(str(archive))
        if value is None and field != "affine":
            labels = source.load(study.name).labels
            assert field not in {**labels.measurements, **labels.demographics}
            read_study(study)
        elif value is not None and not (math.isnan(value) and field == "lvef_percent"):
            with pytest.raises(CmrvlmError, match=rf"study\.json.*{field}|{field}"):
                source.load(study.name)
    with pytest.raises(CmrvlmError, match="lvef_percent"):
        StudyLabels(measurements={"lvef_percent": math.nan})


def manifest(archive, **cells):
    rows = [
        {"study_id": one.name, "sax": f"{one.name}/sax.nii.gz", "lvef_percent": 50.0, **cells}
        for one in archive.iterdir()
    ]
    with (archive / "studies.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return ManifestSource(str(archive / "studies.csv"))


def test_numbers_of_a_table_are_unknown_or_refused_with_row_and_column(archive):
    for text in ("nan", "NaN", "-nan"):
        source = manifest(archive, lvef_percent=text, height_cm=text)
        labels = source.load(source.study_ids()[0]).labels
        assert labels.measurements == labels.demographics == {}
    for text in ("inf", "-Infinity", "1e999"):
        source = manifest(archive, lvef_percent=text)
        with pytest.raises(
            CmrvlmError, match=rf"studies\.csv.*lvef_percent, row \d+.*'{text}' is not finite"
        ):
            source.load(source.study_ids()[0])


def spoiled(path, key=None):
    weights = load_file(path)
    key = key or next(name for name in weights if name.startswith("projectors.lge"))
    weights[key].view(-1)[0] = math.nan
    save_file(weights, path)
    return key


def test_weights_that_are_not_finite_are_named(run, cache, tmp_path):
    folder = shutil.copytree(run, tmp_path / "run")
    key = spoiled(folder / "model.safetensors")
    write_fingerprints(folder)
    with pytest.raises(CmrvlmError, match=rf"model\.safetensors.*'{key}'.*not finite"):
        load_run(folder)
    with pytest.raises(CmrvlmError, match=rf"stage\.init_from.*'{key}'.*not finite"):
        train(
            composed(
                "+experiment=stage3",
                "+debug=fast",
                *QUIET,
                f"stage.init_from={folder}",
                f"paths.cache={cache}",
                f"out={tmp_path / 'next'}",
                f"run_dir={tmp_path / 'next'}",
            ),
            tmp_path / "next",
        )
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    checkpoint["state_dict"][f"model.{key}"].view(-1)[0] = math.inf
    torch.save(checkpoint, folder / "checkpoints" / "last.ckpt")
    with pytest.raises(CmrvlmError, match=rf"last\.ckpt.*ckpt_path.*'model\.{key}'.*not finite"):
        train(
            composed(
                "+experiment=stage3",
                "+debug=fast",
                *QUIET,
                f"ckpt_path={folder / 'checkpoints' / 'last.ckpt'}",
                f"paths.cache={cache}",
                "trainer.max_steps=3",
                f"out={tmp_path / 'on'}",
                f"run_dir={tmp_path / 'on'}",
            ),
            tmp_path / "on",
        )


def test_a_language_model_that_is_not_finite_is_named(cache, tmp_path):
    base = tmp_path / "base"
    tokenizer = published_tokenizer()
    tokenizer.save_pretrained(base)
    FAMILIES["llama"](len(tokenizer)).save_pretrained(base)
    key = spoiled(base / "model.safetensors", "model.layers.1.mlp.up_proj.weight")
    with pytest.raises(CmrvlmError, match=rf"llm\.network.*'{key}'.*not finite"):
        train(
            composed(
                "+experiment=stage3",
                "+debug=fast",
                "llm=local",
                f"llm.network.path={base}",
                "adapter=lora",
                f"paths.cache={cache}",
                f"out={tmp_path / 'run'}",
                f"run_dir={tmp_path / 'run'}",
            ),
            tmp_path / "run",
        )


def at_step(step, monkeypatch, change):
    losses = Stage.means

    def changed(self, batch, *, together=False):
        found = losses(self, batch, together=together)
        return change(found) if self.training and self.trainer.global_step == step else found

    monkeypatch.setattr(Stage, "means", changed)


class NotANumber(torch.autograd.Function):
    """A loss that is finite with a gradient that is not."""

    @staticmethod
    def forward(context, loss):
        return loss.clone()

    @staticmethod
    def backward(context, gradient):
        return gradient * math.nan


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda found: found | {"disease": found["disease"] * math.nan},
            r"loss is not finite at step 2: disease nan; studies phantom-\S+, .*tasks \w+",
        ),
        (
            lambda found: found | {"language": found["language"] * math.inf},
            r"loss is not finite at step 2: language inf",
        ),
        (
            lambda found: found | {"language": NotANumber.apply(found["language"])},
            "gradients are not finite at step 2",
        ),
    ],
)
def test_a_training_not_finite_stops_and_keeps_its_checkpoint(
    cache, tmp_path, monkeypatch, change, said
):
    at_step(2, monkeypatch, change)
    run = tmp_path / "run"
    config = composed(
        "+experiment=stage3",
        "+debug=fast",
        *QUIET,
        "trainer.max_steps=4",
        f"paths.cache={cache}",
        f"out={run}",
        f"run_dir={run}",
    )
    with pytest.raises(CmrvlmError, match=said):
        train(config, run)
    kept = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert kept["global_step"] == 2
    assert all(torch.isfinite(one).all() for one in kept["state_dict"].values())
    assert not (run / "model.safetensors").exists()


@pytest.mark.slow
def test_a_loss_that_is_not_finite_fails_the_command(archive, tmp_path):
    """A rate so large that the weights run away: an exit status, one line, and no job that is done."""
    run = tmp_path / "run"
    done = python(
        "cmrvlm.train",
        "+experiment=stage3",
        "+debug=fast",
        *QUIET,
        "optimizer=sgd",
        "optimizer.lr=1e30",
        "trainer.gradient_clip_val=null",
        "trainer.max_steps=6",
        f"paths.cache={tmp_path / 'cache'}",
        f"out={run}",
    )
    assert done.returncode == 1
    assert "not finite at step" in done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads((run / "result.json").read_text())["status"] == "failed"
    assert not (run / "model.safetensors").exists()


@pytest.mark.parametrize("workers", [0, 2])
def test_no_epoch_ends_early_by_a_stray_end_of_an_iteration(cache, tmp_path, monkeypatch, workers):
    draw = Mixture.draw

    def ends(self, study, rng):
        return next(iter([])) if study.study_id.endswith("7") else draw(self, study, rng)

    monkeypatch.setattr(Mixture, "draw", ends)
    run = tmp_path / "run"
    config = composed(
        "+experiment=stage3",
        "+debug=fast",
        *QUIET,
        "trainer.max_steps=20",
        f"paths.cache={cache}",
        f"data.num_workers={workers}",
        f"out={run}",
        f"run_dir={run}",
    )
    with pytest.raises(RuntimeError, match="ended early"):
        train(config, run)


def test_a_check_of_nothing_does_not_pass(tmp_path, archive):
    found = CheckRun(NiftiSource(str(archive)), tmp_path / "check").finish([], None, "nothing")
    assert found["verdict"] == "errors"
    assert found["faults"][0]["code"] == "empty"


def test_json_holds_no_number_that_is_not_finite(tmp_path):
    from cmrvlm.study.atomic_files import write_json

    write_json(tmp_path / "a.json", {"a": [math.nan, {"b": (math.inf, 1.5, "左", None, True)}]})
    text = (tmp_path / "a.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {
        "a": [None, {"b": [None, 1.5, "左", None, True]}]
    }
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_value_that_overflows_when_it_is_kept_is_named(archive, tmp_path):
    """Without the step that scales grey values they are kept as they are, in half precision."""
    for study in archive.iterdir():
        image = nib.load(study / "sax.nii.gz")
        nib.save(
            nib.Nifti1Image(np.asarray(image.dataobj) * 1e6, image.affine), study / "sax.nii.gz"
        )
    config = archive_training(
        archive,
        tmp_path / "cache",
        tmp_path / "run",
        "transform.preprocessing.steps.intensity=null",
    )
    with pytest.raises(CmrvlmError, match="half precision"):
        train(config, tmp_path / "run")


def test_reading_keeps_every_finite_number(tmp_path):
    data = np.array([[[np.finfo(np.float32).max, -3.5, 0, 1e-30]]], dtype=np.float64)
    nib.save(
        nib.Nifti1Image(data, np.diag([1.2, 1.2, 8, 1.0]), dtype=np.float64), tmp_path / "a.nii.gz"
    )
    assert (
        read_nifti(tmp_path / "a.nii.gz")[0].astype(np.float32).ravel().tolist()
        == data.astype(np.float32).ravel().tolist()
    )


def test_affines_not_finite_and_voxels_not_grey_are_named(tmp_path):
    image = nib.Nifti1Image(np.ones((4, 4, 3), np.float32), np.diag([1.5, 1.5, 8, 1.0]))
    image.header["srow_x"] = [1.5, 0, 0, np.nan]
    nib.save(
        nib.Nifti1Image(np.ones((4, 4, 3), np.float32), None, image.header), tmp_path / "a.nii.gz"
    )
    with pytest.raises(CmrvlmError, match=r"a\.nii\.gz.*srow.*not finite"):
        read_nifti(tmp_path / "a.nii.gz")
    for name, kind in (("rgb", [("R", "u1"), ("G", "u1"), ("B", "u1")]), ("complex", np.complex64)):
        nib.save(
            nib.Nifti1Image(np.zeros((4, 4, 3), kind), np.diag([1.5, 1.5, 8, 1.0])),
            tmp_path / f"{name}.nii.gz",
        )
        with pytest.raises(CmrvlmError, match=rf"{name}\.nii\.gz.*datatype.*grey values"):
            read_nifti(tmp_path / f"{name}.nii.gz")


def test_weights_of_eight_bits_are_looked_at():
    from cmrvlm.language_model.finite import first_not_finite

    kind = torch.float8_e4m3fn
    assert first_not_finite([("x", torch.zeros(2).to(kind))]) is None
    assert (
        first_not_finite([("x", torch.zeros(2)), ("y", torch.tensor([1.0, math.nan]).to(kind))])
        == "y"
    )
