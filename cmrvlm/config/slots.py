"""Allow for each place of a configuration the subclasses of a base class, or a few factories.

A configuration may come from another person, inside a run folder. If every object of this project
were allowed anywhere, a `_target_` could call a method that clears a folder or a function that
imports a package.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

_LANGUAGE_MODELS = (
    "cmrvlm.language_model.network.tiny_language_model",
    "cmrvlm.language_model.pretrained.pretrained_language_model",
)
_TOKENIZERS = (
    "cmrvlm.language_model.tokenizer.train_tokenizer",
    "cmrvlm.language_model.tokenizer.pretrained_tokenizer",
)
_ADAPTERS = (
    "cmrvlm.language_model.adapter.frozen",
    "cmrvlm.language_model.adapter.full",
    "cmrvlm.language_model.adapter.lora",
)
_MODELS = ("cmrvlm.models.assemble.vision_language", "cmrvlm.models.assemble.dual")
_SCHEDULES = (
    "cmrvlm.stages.schedule.warmup_cosine",
    "cmrvlm.stages.schedule.constant",
    "torch.optim.lr_scheduler.LRScheduler",
)
_CALLBACKS = (
    "lightning.pytorch.callbacks.Callback",
    "cmrvlm.stages.callbacks.progress.progress_bar",
)
_LOGGERS = (
    "lightning.pytorch.loggers.Logger",
    "cmrvlm.stages.csv_logger.csv_logger",
    "cmrvlm.stages.wandb_logger.wandb_logger",
)

# Keys joined by dots, where `*` is any one key, to the base classes and factories allowed there.
SLOTS: dict[str, tuple[str, ...]] = {
    "data": ("data_modules.study_data_module.StudyDataModule",),
    "data.source": ("data_modules.sources.base.Source",),
    "data.source.scanner": ("data_modules.sources.phantom.render.Scanner",),
    "transform.preprocessing": ("cmrvlm.transforms.preprocessing.Preprocessing",),
    "transform.preprocessing.steps.*": ("cmrvlm.transforms.step.Step",),
    "transform.augmentation": ("cmrvlm.transforms.augment.Augment",),
    "transform.augmentation.extra.*": ("cmrvlm.transforms.artefacts.Artefact",),
    "mix": ("cmrvlm.tasks.mixture.Mixture",),
    "mix.tasks.*": ("cmrvlm.tasks.base.Task",),
    "encoders.*": ("cmrvlm.encoders.base.Encoder",),
    "projector": ("cmrvlm.models.projector.Projector",),
    "llm.network": _LANGUAGE_MODELS,
    "llm.tokenizer": _TOKENIZERS,
    "adapter": _ADAPTERS,
    "head.mask": ("cmrvlm.models.mask_decoder.MaskDecoder",),
    "head.read_out": ("cmrvlm.models.read_out.ReadOut",),
    "model": _MODELS,
    "model.contrast": ("cmrvlm.losses.contrastive.ContrastiveLoss",),
    "model.text_tower": ("cmrvlm.language_model.text_tower.TextTower",),
    "stage": ("cmrvlm.stages.base.Stage",),
    "optimizer": ("torch.optim.Optimizer",),
    "schedule": _SCHEDULES,
    "trainer": ("lightning.pytorch.trainer.Trainer",),
    "callbacks.*": _CALLBACKS,
    "logger.*": _LOGGERS,
    "decoding": ("cmrvlm.language_model.decoding.Decode",),
    "masks": ("cmrvlm.inference.mask_reading.MaskReading",),
    "check": ("data_modules.checking.run.CheckRun",),
    "cache": ("data_modules.storage.entries.CacheFolder",),
    "shards": ("data_modules.storage.shard_writer.ShardWriter",),
    "ingest": ("data_modules.dicom.ingest.Ingest",),
}


def allowed_in(key_path: str) -> tuple[str, ...]:
    """Return the dotted names of the base classes and factories allowed at a place; may be empty.

    Args:
        key_path: Keys from the top of the configuration, joined by dots.
    """
    # `*` of fnmatch spans dots too, so the number of keys is compared first.
    depth = key_path.count(".")
    for pattern, names in SLOTS.items():
        if pattern.count(".") == depth and fnmatchcase(key_path, pattern):
            return names
    return ()
