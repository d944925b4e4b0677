"""Define the three data sets of the comparison, their folds by patient, and their loading.

EMIDEC is available as pictures of slices that were stretched to one size. They become stacks in
the challenge's own layout with a spacing of 1 mm that is not theirs, so nothing in mm, ml or g is
scored on them.
"""

from __future__ import annotations

import itertools
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from hydra import compose, initialize_config_dir
from PIL import Image
from sklearn.model_selection import StratifiedKFold

from cmrvlm.config.command import resolved
from cmrvlm.errors import CmrvlmError
from cmrvlm.runs.wiring import build_data
from cmrvlm.study.files import write_nifti
from cmrvlm.study.study import Series
from data_modules.sources.base import Source
from data_modules.study_data_module import StudyDataModule

CONF = Path(__file__).parents[2] / "conf"
FOLDS = 5
_FOLDERS = ("train", "trainannot", "val", "valannot")
_SLICE = re.compile(r"(Case_[NP]\d+)_slice\d+\.png")
_AUGMENTATION = [
    "transform.augmentation.rotation_degrees=30",
    "transform.augmentation.geometry_probability=0.9",
]
_UNET = [
    "head=fine",
    "data.batch_size=1",
    "hardware=cpu_bf16",
    "trainer.limit_val_batches=0",
    "callbacks.samples=null",
]
_SHORT_AXIS = ["~encoder@encoders.lax_4ch", "~encoder@encoders.lge", "encoder@encoders.sax=unet"]
_LATE = [
    "~encoder@encoders.sax",
    "~encoder@encoders.lax_4ch",
    "encoder@encoders.lge=unet",
    "encoders.lge.temporal_tokens=0",
    "model.mask_sequences=[lge]",
]


@dataclass(frozen=True)
class DataSet:
    """What is compared on a data set.

    Attributes:
        experiment: Overrides that name the data.
        grid: Spacing (mm) and size along (H, W), and the centre.
        encoders: Overrides of our model.
        mixes: Name of each of our models to the overrides of its mix.
        sequence: Series with the masks.
        structures: What is labelled.
        in_mm: Whether the spacing is the true one.
    """

    experiment: tuple[str, ...]
    grid: tuple[float, int, str]
    encoders: tuple[str, ...]
    mixes: dict[str, tuple[str, ...]]
    sequence: str = "sax"
    structures: tuple[str, ...] = ("lv", "myo", "rv")
    in_mm: bool = True

    def overrides(self, root: str) -> list[str]:
        """Return the overrides for `cmrvlm.train`, but for the mix and the split.

        Args:
            root: Folder of the data; empty for data without any.
        """
        spacing, size, center = self.grid
        grid = "transform.preprocessing.steps.grid"
        grid_overrides = [
            f"{grid}.spacing_mm=[null,{spacing},{spacing}]",
            f"{grid}.size=[null,{size},{size}]",
            f"{grid}.center={center}",
        ]
        root_override: list[str] = []
        if root:
            root_override = [f"data.root={root}"]
        return [
            *self.experiment,
            *root_override,
            *grid_overrides,
            *_AUGMENTATION,
            *_UNET,
            *self.encoders,
        ]


_MASKS_ALONE = ("head.read_out=null", "stage.trainable=[encoders,projectors,mask_head]")
# The read-outs' losses are sums over classes, ten times those of masks at first.
_MASKS_COUNT = ("stage.loss_weights.mask_dice=5", "stage.loss_weights.mask_ce=5")
_ON_SHORT_AXIS = {
    "ours": ("mix=masks", *_MASKS_ALONE),
    "ours_full_mix": ("mix=segmentation", *_MASKS_COUNT),
}
_ALL_OF_LATE = (
    "mix=segmentation_lge",
    "+task@mix.tasks.disease=disease",
    "+mix.weights.disease=0.5",
    "+task@mix.tasks.abnormality=abnormality",
    "+mix.weights.abnormality=0.5",
    *_MASKS_COUNT,
)
DATA_SETS = {
    "acdc": DataSet(("+experiment=acdc",), (1.5, 128, "heart"), tuple(_SHORT_AXIS), _ON_SHORT_AXIS),
    "phantom": DataSet(
        (
            "+experiment=stage3",
            "data.source.count=100",
            "transform.preprocessing.steps.frames.frames=2",
        ),
        (1.5, 128, "image"),
        tuple(_SHORT_AXIS),
        _ON_SHORT_AXIS,
    ),
    "emidec": DataSet(
        ("+experiment=stage3", "data=emidec"),
        (1.0, 128, "image"),
        tuple(_LATE),
        {"ours": ("mix=segmentation_lge", *_MASKS_ALONE), "ours_full_mix": _ALL_OF_LATE},
        "lge",
        ("lv", "myo", "scar", "no_reflow"),
        in_mm=False,
    ),
}


def stacks_of_slices(pictures: Path, out: Path) -> None:
    """Write EMIDEC's pictures of slices as stacks, `<case>/Images/<case>.nii.gz` and `Contours`.

    Cases that are already there are left as they are.

    The pictures are turned by 180 degrees, and are turned back here.

    Args:
        pictures: Folder with `train`, `trainannot`, `val` and `valannot`.
        out: Folder for the cases.

    Raises:
        CmrvlmError: A folder is missing.
    """
    slices: dict[str, list[Path]] = defaultdict(list)
    missing = [name for name in _FOLDERS if not (pictures / name).is_dir()]
    if missing:
        raise CmrvlmError(
            f"there is no folder {missing[0]} here",
            file=pictures,
            field="root",
            remedy=f"Give the folder that holds {', '.join(_FOLDERS)}.",
        )
    for path in sorted(pictures.glob("*annot/*.png"), key=lambda file: file.name):
        match = _SLICE.fullmatch(path.name)
        if match:
            slices[match[1]].append(path)
    for case, paths in slices.items():
        # The contours are written last: where they are, the case is complete.
        if (out / case / "Contours" / f"{case}.nii.gz").is_file():
            continue
        images = [
            path.parents[1] / path.parent.name.removesuffix("annot") / path.name for path in paths
        ]
        for kind, files in (("Images", images), ("Contours", paths)):
            pictures_of_case = [np.rot90(np.asarray(Image.open(file)), 2) for file in files]
            stack = np.stack(pictures_of_case)[:, None]  # (Z, 1, H, W)
            (out / case / kind).mkdir(parents=True, exist_ok=True)
            write_nifti(out / case / kind / f"{case}.nii.gz", stack, np.diag([1.0, 1.0, 10.0, 1.0]))


def data_of(overrides: list[str]) -> StudyDataModule:
    """Build the data module of an experiment from overrides of `cmrvlm.train`."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", overrides=[*overrides, "out=none", "run_dir=none"])
    return build_data(resolved(config))


def write_folds(source: Source, folder: Path) -> list[Path]:
    """Write a split file for each fold, stratified; each patient is held out once."""
    studies = source.study_ids()
    strata = source.strata()
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, (train, test) in enumerate(folds.split(studies, strata)):
        path = folder / f"split{number}.json"
        split = {"train": [studies[i] for i in train], "test": [studies[i] for i in test]}
        path.write_text(json.dumps(split))
        paths.append(path)
    return paths


def median_stack(data: StudyDataModule, sequence: str) -> tuple[list[int], list[float]]:
    """Return the median size and spacing in mm along (Z, H, W) of the training series."""
    sizes = []
    spacings = []
    for study_id in data.split["train"]:
        series = data.cache.load(study_id, [sequence]).series[sequence]
        sizes.append((len(series.image), *series.image.shape[2:]))
        spacings.append(series.spacing_mm)
    median_size = np.median(sizes, axis=0).round().astype(int)
    median_spacing = np.median(spacings, axis=0)
    return median_size.tolist(), median_spacing.tolist()


def endless(data: StudyDataModule, sequence: str, slices: int | None) -> Iterator[Series]:
    """Yield single annotated frames of the training series, epoch after epoch.

    A frame is chosen first and then augmented.

    Args:
        data: Data module with its split.
        sequence: Series to take.
        slices: Take as many slices at random; None takes all.
    """
    for epoch in itertools.count():
        rng = np.random.default_rng([data.seed, epoch])
        for study_id in rng.permutation(data.split["train"]).tolist():
            study = data.cache.load(study_id, [sequence])
            series = study.series[sequence]
            assert series.mask is not None
            frame = int(rng.choice(series.annotated_frames()))
            count = len(series.image)
            chosen = list(range(count))
            if slices is not None:
                chosen = sorted(rng.choice(count, min(slices, count), replace=False))
            if not data.augmentation:
                yield series
                continue
            selected = Series(
                image=series.image[chosen, frame : frame + 1],
                affine=series.affine,
                mask=series.mask[chosen, frame : frame + 1],
            )
            augmented = data.augmentation(study.with_series({sequence: selected}), rng)
            yield augmented.series[sequence]
