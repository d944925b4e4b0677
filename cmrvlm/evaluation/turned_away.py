"""Count the hearts and the images without a heart that a run turns away.

A heart counts as turned away where any of its series is, images without a heart only where all of
them are: of the others something is said.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rich.progress import track

from cmrvlm.errors import CmrvlmError
from cmrvlm.evaluation.processes import gathered_by_key, own_share
from cmrvlm.evaluation.results import Bootstrap, with_interval
from cmrvlm.inference.unlike_training import unlike_training
from cmrvlm.metrics.statistic import Mean
from cmrvlm.models.study_encoding import encode_studies
from cmrvlm.runs.known_images import spread
from cmrvlm.runs.run_folder import TrainedRun
from cmrvlm.study.study import Study
from cmrvlm.transforms.foreign import FOREIGN, foreign_study

log = logging.getLogger(__name__)

HEARTS = "hearts"
# All kinds of images without a heart together.
FOREIGN_IMAGES = "foreign"
# Studies of which each kind of image without a heart is made.
MOST_FOREIGN = 32
NO_FAMILIARITY = (
    "the run keeps no familiarity.safetensors: it was trained with keep_familiarity=false, "
    "which +debug=fast sets"
)
# Images to what is counted of them, see `cmrvlm.evaluation.results.with_interval`.
Rates = dict[str, dict[str, Any]]


def turned_away(
    run: TrainedRun,
    load: Callable[[str], Study],
    patient_of: Mapping[str, str],
    bootstrap: Bootstrap,
) -> Rates:
    """Return the shares of hearts and of images without a heart that a run turns away.

    Each study is encoded by itself, so that nothing depends on how many are asked about at a time.

    Args:
        run: Trained run; of one that keeps no familiarity nothing is known, and all is counted so.
        load: Returns a study on the model's grid by its id.
        patient_of: Id of each study that is counted to its patient.
        bootstrap: Resamples of the patients.

    Returns:
        `hearts`, each kind of `FOREIGN`, and `foreign` for all kinds: value, interval, and counts.
    """
    foreign_ids = spread(list(patient_of), MOST_FOREIGN)
    asked = [(HEARTS, study_id) for study_id in patient_of]
    asked += [(kind, study_id) for kind in FOREIGN for study_id in foreign_ids]
    measured: dict[tuple[str, str], bool | None] = dict.fromkeys(asked)
    if run.familiarity is not None:
        measured |= gathered_by_key(dict(_measured(run, load, own_share(asked))))
    rates = {}
    for images in (HEARTS, FOREIGN_IMAGES, *FOREIGN):
        kinds = list(FOREIGN) if images == FOREIGN_IMAGES else [images]
        keys = [key for key in asked if key[0] in kinds]
        weights = bootstrap.rows([patient_of[study_id] for _, study_id in keys])
        values = [None if measured[key] is None else float(bool(measured[key])) for key in keys]
        cell, _ = with_interval(Mean(values), weights)
        rates[images] = cell | {"turned_away": sum(value == 1 for value in values)}
    return rates


def _measured(
    run: TrainedRun, load: Callable[[str], Study], asked: Sequence[tuple[str, str]]
) -> Iterator[tuple[tuple[str, str], bool | None]]:
    """Yield for each kind of images and study whether they are turned away, None where it fails."""
    for kind, study_id in track(asked, "Counting what is turned away", transient=True):
        try:
            yield (kind, study_id), _is_turned_away(run, load(study_id), kind)
        except CmrvlmError as error:
            log.warning("%s of %s: %s", kind, study_id, error.without_folders())
            yield (kind, study_id), None


def _is_turned_away(run: TrainedRun, study: Study, kind: str) -> bool:
    """Return whether a heart, or images without a heart in its place, are turned away.

    Args:
        run: Trained run.
        study: Study on the model's grid.
        kind: `hearts`, or a key of `FOREIGN`.
    """
    known = [name for name in study.series if name in run.model.encoders]
    study = study.with_series({name: study.series[name] for name in known})
    if kind == HEARTS:
        return bool(unlike_training(run, encode_studies(run.model, [study])))
    # The draw follows from the study alone, whichever others there are.
    foreign = foreign_study(study, kind, zlib.crc32(study.study_id.encode()))
    prepared = run.preprocessing(foreign)
    reasons = unlike_training(run, encode_studies(run.model, [prepared]))
    return len(reasons) == len(known)
