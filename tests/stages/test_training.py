"""Each stage learns, resumes bit for bit, hands over its parts, and keeps what a run needs."""

import csv
import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from safetensors.torch import load_file, save_file

from cmrvlm.errors import CmrvlmError
from cmrvlm.inference.cmrvlm import CMRVLM
from cmrvlm.instructions.rows import rows_by_shown_set
from cmrvlm.runs.fingerprints import write_fingerprints
from cmrvlm.runs.handover import hand_over, load_parts, moved_table, part_of
from cmrvlm.runs.run_folder import (
    check_preprocessing,
    load_run,
    load_weights,
    own_weights,
    weights_hash,
)
from cmrvlm.runs.wiring import build_collator, build_data, build_model, build_stage, build_tokenizer
from cmrvlm.stages.base import Stage
from cmrvlm.stages.schedule import constant, warmup_cosine
from cmrvlm.stages.training import train
from cmrvlm.study.vocabulary import DISEASES, STRUCTURES
from cmrvlm.transforms.intensity import PercentileIntensity
from cmrvlm.transforms.preprocessing import Preprocessing
from data_modules.loading.accumulation import with_window_counts
from data_modules.sources.phantom.source import PhantomSource
from tests.conftest import composed

SMALL = (
    "projector.hidden=16",
    "head.read_out.hidden=16",
    "llm.network.hidden_size=32",
    "llm.network.layers=1",
    "llm.network.intermediate_size=48",
)
QUIET = ("callbacks.samples=null", "callbacks.learning_rate=null", "logger=[]")


def stage_of(config):
    """Stage and one training batch of a configuration."""
    torch.manual_seed(0)
    data = build_data(config)
    data.prepare_data()
    tokenizer = build_tokenizer(config, data, None)
    model = build_model(config, tokenizer)
    data.collator = build_collator(model, tokenizer)
    return build_stage(config, model), next(iter(data.train_dataloader()))


@pytest.mark.parametrize(
    ("stage", "steps", "share"),
    [
        pytest.param("stage1", 60, 0.4, marks=pytest.mark.slow),
        pytest.param("stage2", 60, 0.9, marks=pytest.mark.slow),
        pytest.param("stage3", 45, 0.4, marks=pytest.mark.slow),
    ],
)
def test_one_batch_is_overfitted(stage, steps, share, small_config):
    """Stage 2 trains projectors alone before a frozen random language model, so it can learn least."""
    module, batch = stage_of(small_config(f"+experiment={stage}"))
    optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], 3e-3)
    first = module.total(module.means(batch)).item()
    for _ in range(steps):
        optimizer.zero_grad()
        loss = module.total(module.means(batch))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
    assert loss.item() < share * first, f"{first} to {loss.item()}"


@pytest.mark.parametrize("stage", ["stage1", "stage2", "stage3"])
def test_what_a_stage_does_not_train_stays(stage, small_config):
    config = small_config(f"+experiment={stage}", *QUIET)
    module, batch = stage_of(config)
    trained = {part_of(name) for name, p in module.model.named_parameters() if p.requires_grad}
    expected = {
        "stage1": {
            "encoders.sax",
            "encoders.lax_4ch",
            "encoders.lge",
            "image_projection.sax",
            "image_projection.lax_4ch",
            "image_projection.lge",
            "projectors.sax",
            "projectors.lax_4ch",
            "projectors.lge",
            "text_projection",
            "contrast",
            "llm",
        },
        "stage2": {
            "projectors.sax",
            "projectors.lax_4ch",
            "projectors.lge",
            "read_out",
        },  # how it is told, see below
        "stage3": {part_of(name) for name, _ in module.model.named_parameters()},
    }[stage]
    assert trained == expected
    read_out = {
        name
        for name, p in module.model.named_parameters()
        if p.requires_grad and name.startswith("read_out")
    }
    assert stage != "stage2" or read_out == {"read_out.tell.labels", "read_out.tell.directions"}
    module.total(module.means(batch)).backward()
    assert all(p.grad is None for p in module.model.parameters() if not p.requires_grad)


@pytest.mark.slow
def test_twenty_steps_in_bf16_on_hearts_without_a_right_ventricle(
    small_config, tmp_path, monkeypatch
):
    """Half of the studies have none, the others at end-diastole alone; no loss is not a number."""
    load = PhantomSource.load

    def without(self, study_id):
        study = load(self, study_id)
        sax = study.series["sax"]
        mask = sax.mask.copy()
        kept = {sax.phases["ed"]} if int(study_id[-1]) % 2 else set()
        for frame in set(range(mask.shape[1])) - kept:
            mask[:, frame][mask[:, frame] == STRUCTURES["rv"]] = 0
        return study.with_series({**study.series, "sax": replace(sax, mask=mask)})

    monkeypatch.setattr(PhantomSource, "load", without)
    config = small_config(
        "+experiment=stage3",
        "mix=masks",
        "hardware=cpu_bf16",
        "trainer.max_steps=20",
        f"paths.cache={tmp_path / 'cache'}",
    )
    train(config, _folder(config))
    rows = [
        row for path in _folder(config).rglob("metrics.csv") for row in csv.DictReader(path.open())
    ]
    losses = [float(row["train/loss_mask_dice"]) for row in rows if row.get("train/loss_mask_dice")]
    assert len(losses) == 20
    assert all(np.isfinite(losses))
    weights = load_file(_folder(config) / "model.safetensors")
    assert all(torch.isfinite(one).all() for one in weights.values())


TRAINING_STEP = Stage.training_step


def _noted(trained):
    def noting(self, batch, index):
        trained.append(
            (
                self.trainer.global_step,
                tuple(batch.study_ids),
                tuple(one.prompt for one in batch.instructions),
            )
        )
        return TRAINING_STEP(self, batch, index)

    return noting


@pytest.mark.parametrize(
    ("stop_at", "workers", "accumulated"),
    [
        (2, 2, 1),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                (4, 0, 1),
                (1, 2, 2),
                (2, 0, 1),
                (3, 0, 1),
                (3, 2, 1),
                (4, 2, 1),
                (1, 0, 2),
                (2, 0, 2),
                (2, 2, 2),
                (3, 2, 2),
            )
        ),
    ],
)
def test_resumed_run_equals_an_unbroken_one_bit_for_bit(
    stop_at, workers, accumulated, small_config, monkeypatch
):
    """Three batches an epoch: step 2 is within the first one, step 3 its end, step 4 within the second.

    With two batches a step, step 1 is within an epoch, and step 2, of one batch, its end.
    """
    steps = (
        "+experiment=stage3",
        *QUIET,
        *SMALL,
        "data.source.count=16",
        "data.batch_size=4",
        "data.shares={val:0,test:0.25}",
        "callbacks.checkpoint.every_n_train_steps=1",
        "trainer.limit_val_batches=0",
        "trainer.val_check_interval=null",
        "trainer.check_val_every_n_epoch=1",
        "trainer.max_steps=6",
        f"data.num_workers={workers}",
        f"trainer.accumulate_grad_batches={accumulated}",
    )
    trained = {"whole": [], "halted": [], "resumed": []}
    whole = small_config(*steps, folder="whole")
    monkeypatch.setattr(Stage, "training_step", _noted(trained["whole"]))
    train(whole, _folder(whole))
    halted = small_config(*steps, folder="halted")
    with monkeypatch.context() as patch:
        patch.setattr(Stage, "training_step", _noted(trained["halted"]))
        patch.setattr(Stage, "on_train_batch_end", _stop_after(stop_at), raising=False)
        train(halted, _folder(halted))
    trained["halted"] = [one for one in trained["halted"] if one[0] < stop_at]
    checkpoint = _folder(halted) / "checkpoints" / "last.ckpt"
    resumed = small_config(*steps, f"ckpt_path={checkpoint}", folder="resumed")
    loads = []
    real_load = torch.load
    with monkeypatch.context() as patch:
        patch.setattr(Stage, "training_step", _noted(trained["resumed"]))
        patch.setattr(
            torch, "load", lambda *a, **k: loads.append(k.get("weights_only")) or real_load(*a, **k)
        )
        train(resumed, _folder(resumed))
    assert loads == [True]
    assert trained["whole"] == trained["halted"] + trained["resumed"]
    one, two = (load_file(_folder(c) / "model.safetensors") for c in (whole, resumed))
    stopped = load_file(_folder(halted) / "model.safetensors")
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert any(not torch.equal(one[key], stopped[key]) for key in one)
    assert not [p.name for p in checkpoint.parent.iterdir() if "=" in p.name or " " in p.name]


@pytest.mark.parametrize(
    ("first", "workers"),
    [
        pytest.param(*case, marks=pytest.mark.slow)
        for case in ((2, 0), (2, 2), (3, 0), (3, 2), (4, 0), (4, 2))
    ],
)
def test_a_run_that_reached_its_steps_goes_on_with_the_next_batch(
    first, workers, small_config, monkeypatch
):
    """Epochs are cut short by a limit here, and validation comes between steps; no batch is repeated or left out."""
    steps = (
        "+experiment=stage3",
        *QUIET,
        *SMALL,
        "data.source.count=32",
        "data.batch_size=4",
        "schedule=constant",
        "callbacks.checkpoint.every_n_train_steps=1",
        "trainer.limit_train_batches=3",
        "trainer.val_check_interval=2",
        f"data.num_workers={workers}",
    )
    trained = {"whole": [], "parts": []}
    monkeypatch.setattr(Stage, "training_step", _noted(trained["whole"]))
    whole = small_config(*steps, "trainer.max_steps=7", folder="whole")
    train(whole, _folder(whole))
    monkeypatch.setattr(Stage, "training_step", _noted(trained["parts"]))
    begun = small_config(*steps, f"trainer.max_steps={first}", folder="begun")
    train(begun, _folder(begun))
    on = small_config(
        *steps,
        "trainer.max_steps=7",
        f"ckpt_path={_folder(begun) / 'checkpoints' / 'last.ckpt'}",
        folder="on",
    )
    train(on, _folder(on))
    assert [one[0] for one in trained["whole"]] == list(range(7))
    assert trained["parts"] == trained["whole"]


@pytest.mark.slow
def test_what_is_resumed_has_the_tokenizer_and_split_of_its_run(small_config, tmp_path):
    """Although nothing but the checkpoint is named: not those that the data would give now."""
    steps = (
        "+experiment=stage3",
        *QUIET,
        *SMALL,
        "callbacks.checkpoint.every_n_train_steps=1",
        "trainer.limit_val_batches=0",
        "trainer.max_steps=2",
    )
    first = small_config(*steps, "llm.tokenizer.vocab_size=700", "seed=1", folder="first")
    train(first, _folder(first))
    checkpoint = _folder(first) / "checkpoints" / "last.ckpt"
    again = small_config(*steps, f"ckpt_path={checkpoint}", "trainer.max_steps=3", folder="again")
    train(again, _folder(again))
    for name in ("tokenizer/tokenizer.json", "split.json"):
        texts = [(_folder(one) / name).read_text() for one in (first, again)]
        assert texts[0] == texts[1]
    other = small_config(*steps, folder="other")
    train(other, _folder(other))
    for name in ("tokenizer/tokenizer.json", "split.json"):
        assert (_folder(other) / name).read_text() != (_folder(first) / name).read_text()


@pytest.mark.parametrize("every", [1, 200])
def test_an_interrupted_run_says_how_to_go_on_and_is_no_trained_one(
    every, small_config, monkeypatch
):
    """Its weights are those that training began with, which nobody may take for learned ones."""
    config = small_config(
        "+experiment=stage3",
        *QUIET,
        f"callbacks.checkpoint.every_n_train_steps={every}",
        "trainer.max_steps=4",
    )

    def stop(self, *unused):
        if self.trainer.global_step == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("cmrvlm.stages.base.Stage.on_train_batch_start", stop, raising=False)
    with pytest.raises(
        CmrvlmError,
        match=r"interrupted.*last\.ckpt" if every == 1 else "interrupted.*no checkpoint yet",
    ):
        train(config, _folder(config))
    with pytest.raises(CmrvlmError, match="no weights"):
        load_run(_folder(config))


def _stop_after(steps):
    def hook(self, *unused):
        self.trainer.should_stop = self.trainer.global_step >= steps
        if self.trainer.should_stop:
            self.trainer.fit_loop.epoch_loop.max_steps = steps

    return hook


def _folder(config):
    from pathlib import Path

    return Path(config["run_dir"])


@pytest.fixture(scope="module")
def runs(tmp_path_factory, cache):
    """Folders of a chain of three fast stages."""
    root, earlier, folders = tmp_path_factory.mktemp("chain"), [], {}
    for stage in ("stage1", "stage2", "stage3"):
        run = root / stage
        config = composed(
            f"+experiment={stage}",
            "+debug=fast",
            f"paths.cache={cache}",
            f"out={run}",
            f"run_dir={run}",
            *([] if stage == "stage3" else ["callbacks.samples=null"]),
            *earlier,
        )
        train(config, run)
        folders[stage], earlier = run, [f"stage.init_from={run}"]
    return folders


def test_parts_move_from_stage_to_stage(runs):
    one, two, three = (
        load_file(runs[s] / "model.safetensors") for s in ("stage1", "stage2", "stage3")
    )
    shared = [key for key in one if key in two]
    assert any(key.startswith("encoders.sax") for key in shared)
    assert any(key.startswith("llm.") for key in shared)
    still = [key for key in shared if not key.startswith("projectors.")]
    assert all(torch.equal(one[key], two[key]) for key in still)  # stage 2 trains projectors alone
    assert any(not torch.equal(one[key], two[key]) for key in shared)
    assert any(not torch.equal(two[key], three[key]) for key in two if key.startswith("llm."))
    tokenizers = {(runs[s] / "tokenizer" / "tokenizer.json").read_text() for s in runs}
    assert len(tokenizers) == 1


def test_run_folder_holds_what_is_needed(runs):
    names = {path.name for path in runs["stage3"].iterdir()}
    assert {
        "config.yaml",
        "model.safetensors",
        "tokenizer",
        "labels.json",
        "preprocessing.json",
        "split.json",
    } <= names
    assert list((runs["stage3"] / "samples").glob("*.jsonl"))
    assert list((runs["stage3"] / "panels").glob("*.png"))
    assert (runs["stage3"] / "logs" / "metrics.csv").read_text().count("train/loss") >= 1
    assert len(weights_hash(runs["stage3"])) == 16


def test_trained_model_is_loaded_as_it_was(runs):
    model = CMRVLM.from_pretrained(runs["stage3"], device="cpu").network
    saved = load_file(runs["stage3"] / "model.safetensors")
    assert all(torch.equal(own_weights(model)[key], saved[key]) for key in saved)
    assert not model.training
    with pytest.raises(CmrvlmError, match="stage 1"):
        load_run(runs["stage1"])


def test_renamed_missing_and_reshaped_weights_are_named(runs, tmp_path):
    model = load_run(runs["stage3"]).model
    saved = load_file(runs["stage3"] / "model.safetensors")
    key = next(k for k in saved if k.startswith("projectors.lge"))
    for broken in (
        {**{k: v for k, v in saved.items() if k != key}, "projectors.lge.x": saved[key]},
        {k: v for k, v in saved.items() if k != key},
        saved | {key: torch.zeros(1)},
    ):
        save_file(broken, tmp_path / "model.safetensors")
        with pytest.raises(CmrvlmError, match=r"projectors\.lge"):
            load_weights(model, tmp_path / "model.safetensors")
        with pytest.raises(CmrvlmError, match=r"projectors\.lge"):
            hand_over(model, tmp_path)
    with pytest.raises(CmrvlmError, match="no weights"):
        load_weights(model, tmp_path / "none.safetensors")


def test_hand_over_says_what_moved_and_refuses_silence(runs, tmp_path):
    model = load_run(runs["stage3"]).model
    rows = {row.part: row.status for row in hand_over(model, runs["stage1"])}
    assert rows["encoders.sax"] == rows["llm"] == "moved"
    assert rows["mask_head.sax"] == rows["read_out"] == "fresh"
    assert rows["text_projection"] == "left behind"
    assert moved_table(hand_over(model, runs["stage1"])).row_count == len(rows)
    with pytest.raises(CmrvlmError, match="nothing in the earlier run"):
        load_parts(model, {"other.weight": torch.zeros(1)}, tmp_path)
    with pytest.raises(CmrvlmError, match="no model here"):
        hand_over(model, tmp_path)


def test_other_preprocessing_is_refused_with_both_values(runs):
    trained = load_run(runs["stage3"]).preprocessing
    check_preprocessing(runs["stage3"], trained)
    other = Preprocessing(trained.steps | {"intensity": PercentileIntensity(2.0, 98.0)})
    with pytest.raises(CmrvlmError, match=r"'lower': 1\.0.*'lower': 2\.0"):
        check_preprocessing(runs["stage3"], other)


def test_other_labels_and_no_run_are_refused(runs, tmp_path):
    for path in runs["stage3"].iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "labels.json").write_text(json.dumps({"structures": {}}))
    # As a version with other labels would have written it.
    write_fingerprints(tmp_path)
    with pytest.raises(CmrvlmError, match="other labels"):
        load_run(tmp_path)
    with pytest.raises(CmrvlmError, match="no run here"):
        load_run(tmp_path / "none")


def test_schedules():
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    schedule = warmup_cosine(optimizer, 100, warmup_share=0.1, floor=0.1)
    rates = []
    for _ in range(101):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1.0)
    assert rates[9] == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(0.1)
    assert all(a >= b - 1e-9 for a, b in itertools.pairwise(rates[10:]))
    steady = constant(torch.optim.SGD([weight], lr=0.3), 10)
    assert steady.get_last_lr() == [0.3]


def test_norms_and_biases_are_not_decayed(small_config):
    module, _ = stage_of(small_config("+experiment=stage3"))
    module.trainer = Trainer(
        max_steps=5, logger=False, enable_progress_bar=False, accelerator="cpu"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "estimated_stepping_batches", 5)
        groups = module.configure_optimizers()["optimizer"].param_groups
    assert groups[0]["weight_decay"] > 0
    assert groups[1]["weight_decay"] == 0
    assert all(p.ndim < 2 for p in groups[1]["params"])
    assert all(p.ndim >= 2 for p in groups[0]["params"])


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adafactor", "paged_adamw_8bit"])
def test_optimizers_with_a_small_state_lower_the_loss(small_config, optimizer):
    if optimizer == "paged_adamw_8bit":
        pytest.importorskip("bitsandbytes")
    module, batch = stage_of(small_config("+experiment=stage3", f"optimizer={optimizer}"))
    module.trainer = Trainer(
        max_steps=5, logger=False, enable_progress_bar=False, accelerator="cpu"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "estimated_stepping_batches", 5)
        own = module.configure_optimizers()["optimizer"]
    for group in own.param_groups:
        group["lr"] = 0.001  # without the schedule's warm-up
    values = []
    for _ in range(25):
        own.zero_grad()
        loss = module.total(module.means(batch))
        loss.backward()
        own.step()
        values.append(loss.item())
    assert values[-1] < 0.9 * values[0]
    state = sum(
        v.numel() * v.element_size()
        for one in own.state.values()
        for v in one.values()
        if torch.is_tensor(v)
    )
    weights = sum(p.numel() * p.element_size() for p in module.parameters() if p.requires_grad)
    assert state < 1.1 * weights  # AdamW keeps twice the weights


def test_unknown_part_to_train_is_named(small_config):
    with pytest.raises(CmrvlmError, match="encodrs"):
        stage_of(small_config("+experiment=stage3", "stage.trainable=[encodrs]"))


@pytest.mark.slow
def test_averaged_weights_and_tensorboard(small_config):
    config = small_config(
        "+experiment=stage3",
        "callbacks=ema",
        "logger=tensorboard",
        "trainer.max_steps=3",
    )
    train(config, _folder(config))
    plain_run = small_config("+experiment=stage3", *QUIET, "trainer.max_steps=3", folder="plain")
    train(plain_run, _folder(plain_run))
    averaged, last = (load_file(_folder(c) / "model.safetensors") for c in (config, plain_run))
    assert any(not torch.equal(averaged[key], last[key]) for key in last)
    assert list((_folder(config) / "tensorboard").glob("events*"))


def gradients(module, batches):
    module.zero_grad()
    for batch in batches:
        (module.total(module.means(batch)) / len(batches)).backward()
    return {
        name: p.grad.clone() for name, p in module.model.named_parameters() if p.grad is not None
    }


def test_accumulated_batches_weigh_tokens_and_studies_as_one_batch_does(small_config):
    """A short answer beside a report, an LGE study beside a full one: the gradient is that of the joint batch."""
    module, _ = stage_of(small_config("+experiment=stage3"))
    data = build_data(small_config("+experiment=stage3"))
    data.prepare_data()
    collator = build_collator(
        module.model,
        data_tokenizer := build_tokenizer(small_config("+experiment=stage3"), data, None),
    )
    assert len(data_tokenizer) > 0
    module.eval()
    studies = [data.cache.load(name) for name in data.split["train"][:2]]
    asked = [data.mixture.all(one) for one in studies]
    short = [one for one in asked[0] if one.task in ("sequence", "segment_lv")]
    long = [
        one
        for one in asked[1]
        if one.task in ("report", "segment_myo", "segment_rv", "detect", "disease")
    ]
    samples = [(studies[0], short), (studies[1], long)]
    joint = gradients(module, [collator(samples)])
    windows = with_window_counts([collator([one]) for one in samples], 2)
    split = gradients(module, list(windows))
    assert joint.keys() == split.keys()
    scale = max(value.abs().max().item() for value in joint.values())
    for name, value in joint.items():
        assert (value - split[name]).abs().max().item() < 1e-5 * max(scale, 1), name
    naive = gradients(module, [collator([one]) for one in samples])
    assert (
        max((value - naive[name]).abs().max().item() for name, value in joint.items())
        > 1e-3 * scale
    )


def test_every_scale_of_a_mask_is_supervised_where_it_is_annotated(small_config, monkeypatch):
    module, batch = stage_of(
        small_config("+experiment=stage3", "encoder@encoders.sax=unet", "head=fine")
    )
    rows = [row for row, one in enumerate(batch.instructions) if one.task.startswith("segment_")]
    for row in rows:
        batch.masks[row][..., : batch.masks[row].shape[-1] // 2] = 255
    found, mask_logits = {}, module.model.mask_logits

    def kept(*arguments):
        found.update(mask_logits(*arguments))
        for one in (scale for scales in found.values() for scale in scales):
            one.retain_grad()
        return found

    monkeypatch.setattr(module.model, "mask_logits", kept)
    losses = module.losses(batch)
    (losses["mask_dice"].total + losses["mask_ce"].total).backward()
    assert rows
    for scale in (scale for row in rows for scale in found[row]):
        half = scale.shape[-1] // 2
        assert not scale.grad[..., :half].any()
        assert scale.grad[..., half:].any()
    assert {len(found[row]) for row in rows} == {3}


def test_weight_of_a_task_counts_its_words_masks_and_boxes(small_config):
    """Twice the weight is what twice the loss of those rows would be; the other rows stay as they are."""
    config = small_config("+experiment=stage3")
    module, _ = stage_of(config)
    data = build_data(config)
    data.prepare_data()
    collator = build_collator(module.model, build_tokenizer(config, data, None))
    study = data.cache.load(data.split["train"][0])
    module.eval()

    def totals(tasks):
        asked = [one for one in data.mixture.all(study) if one.task in tasks]
        losses = module.losses(collator([(study, asked)]))
        return {
            name: losses[name].total.item() for name in ("language", "mask_dice", "mask_ce", "box")
        }

    heavy, light = ("report", "segment_lv", "detect"), ("disease", "segment_myo")
    own, rest = totals(heavy), totals(light)
    module.task_weights = dict.fromkeys(heavy, 2.0)
    both = totals((*heavy, *light))
    for name, value in both.items():
        assert value == pytest.approx(2 * own[name] + rest[name], rel=1e-4), name


def test_what_is_taught_replaces_what_is_read_and_is_taught_less_and_less(small_config):
    module, batch = stage_of(small_config("+experiment=stage3"))
    batch.targets["findings"][0, 3] = float("nan")
    told = []

    def tell(outputs, embed):
        told.append(outputs)
        return torch.zeros(
            len(next(iter(outputs.values()))), module.model.read_out_tokens, module.model.llm.width
        )

    module.model.read_out.tell.forward = tell

    encoded = {
        (owner, name)
        for name, stacks in batch.media.items()
        for one in stacks
        for owner in one.owners.tolist()
    }
    studies = [
        study
        for study, _ in rows_by_shown_set(encoded, batch.instructions, batch.questions().owners)
    ]

    def said_of_the_true_class(progress):
        module.progress = progress
        torch.manual_seed(0)
        module.losses(batch)
        return told[-1]["disease"][batch.targets["disease"][studies] > 0.5]

    module.train()
    assert (said_of_the_true_class(0.0) > 0).all()
    assert torch.isfinite(told[-1]["findings"]).all()  # what is not known is told as it was read
    assert (said_of_the_true_class(1.0) < 0).all()  # an untrained read-out expects no class
    assert sorted(module.taught_read_outs(batch)) == sorted(batch.targets)
    module.progress = 1.0
    assert all(value.isnan().all() for value in module.taught_read_outs(batch).values())
    module.eval()
    assert module.taught_read_outs(batch) is None


def test_progress_is_that_of_the_whole_training(small_config, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        Stage,
        "training_step",
        lambda self, batch, index: (
            seen.append(self.progress) or self.model.read_out.tell.labels.sum()
        ),
    )
    train(small_config("+experiment=stage3", *QUIET, "trainer.max_steps=4"), tmp_path / "run")
    assert seen == [0.0, 0.25, 0.5, 0.75]


def test_weight_of_an_unknown_task_is_refused(small_config, tmp_path):
    with pytest.raises(CmrvlmError, match="unknown tasks: reprot"):
        train(small_config("+experiment=stage3", "+mix.loss_weights.reprot=2.0"), tmp_path / "run")


def test_windows_hold_every_batch_once_and_the_last_may_be_short():
    class Fake:
        def __init__(self, tokens):
            self.tokens, self.normalisers = tokens, None

        def counts(self):
            return {"tokens": self.tokens}

    import data_modules.loading.accumulation as module

    found = []
    replace, module.replace = (
        module.replace,
        lambda batch, normalisers: (batch.tokens, normalisers["tokens"]),
    )
    try:
        found = list(with_window_counts([Fake(n) for n in (2, 200, 10, 30, 7)], 2))
    finally:
        module.replace = replace
    assert found == [(2, 101.0), (200, 101.0), (10, 20.0), (30, 20.0), (7, 3.5)]


@pytest.mark.slow
def test_trainer_is_given_windows_only_when_it_accumulates(small_config, tmp_path):
    config = small_config(
        "+experiment=stage3", *QUIET, "trainer.accumulate_grad_batches=2", "trainer.max_steps=2"
    )
    train(config, tmp_path / "run")
    assert load_run(tmp_path / "run").config["trainer"]["accumulate_grad_batches"] == 2


def test_class_shares_are_those_of_the_training_studies(untrained, small_config, tmp_path):
    data = untrained.data
    shares = data.class_shares()
    known = [data.cache.load(study).labels for study in data.split["train"]]
    for index, code in enumerate(DISEASES):
        assert shares["disease"][index].item() == pytest.approx(
            sum(code in one.diseases for one in known) / len(known)
        )
    config = small_config(
        "+experiment=stage3", *QUIET, "stage.balance.disease=1.0", "trainer.max_steps=2"
    )
    train(config, tmp_path / "run")


def test_what_each_task_was_asked_is_counted_in_the_log(small_config, tmp_path):
    config = small_config(
        "+experiment=stage3",
        "trainer.max_steps=8",
        "data.source.count=16",
        "data.shares={val:0,test:0}",
        "mix.per_study=2",
    )
    train(config, tmp_path / "run")
    with (config_folder := tmp_path / "run").joinpath("logs", "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert config_folder.is_dir()
    epochs = [
        row
        for row in rows
        if any(value for name, value in row.items() if name.startswith("asked/"))
    ]
    assert len(epochs) == 2
    for row in epochs:
        assert (
            sum(float(value or 0) for name, value in row.items() if name.startswith("asked/"))
            == 16 * 2
        )


def test_a_mirrored_heart_cannot_be_asked_for(small_config):
    """Reports say septal and lateral: there is no flip, and a setting for one is an error that names it."""
    with pytest.raises(CmrvlmError, match="flip_probability"):
        build_data(
            small_config("+experiment=stage3", "+transform.augmentation.flip_probability=1.0")
        )
