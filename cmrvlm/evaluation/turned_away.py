"""Count the hearts and the images without a heart that a run turns away.

A heart counts as turned away where any of its series is, images without a heart only where all of
them are: of the others something is said.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
from rich.progress import track

from cmrvlm.errors import CmrvlmError
from cmrvlm.evaluation.parts import Parts
from cmrvlm.evaluation.processes import own_share
from cmrvlm.evaluation.results import Bootstrap, Cells, with_intervals
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
_SCHEMA = pa.schema([("kind", pa.string()), ("study", pa.string()), ("turned_away", pa.bool_())])


def _images(study_ids: Sequence[str]) -> list[tuple[str, str]]:
    """Return kind of images and study of everything that is counted."""
    foreign_ids = spread(list(study_ids), MOST_FOREIGN)
    hearts = [(HEARTS, study_id) for study_id in study_ids]
    return hearts + [(kind, study_id) for kind in FOREIGN for study_id in foreign_ids]


class TurnedAway:
    """What a run turns away, in a folder, so that counting goes on where it stopped.

    Args:
        folder: Folder of the counts.
        study_ids: Studies to count.
        writer: Number of the process that counts.
    """

    def __init__(self, folder: Path, study_ids: Sequence[str], writer: int = 0) -> None:
        self._images = _images(study_ids)
        self._parts = Parts(folder, _SCHEMA, writer)

    def count(self, run: TrainedRun, load: Callable[[str], Study]) -> None:
        """Look at the images that were not looked at yet.

        Each study is encoded by itself, so that nothing depends on how many are asked about at a
        time. Of a run that keeps no familiarity nothing is known.

        Args:
            run: Trained run.
            load: Returns a study on the model's grid by its id.
        """
        if run.familiarity is None:
            return
        known = self._counted()
        images = [key for key in own_share(self._images) if key not in known]
        for kind, study_id in track(images, "Counting what is turned away", transient=True):
            is_turned_away = None
            try:
                is_turned_away = _is_turned_away(run, load(study_id), kind)
            except CmrvlmError as error:
                log.warning("%s of %s: %s", kind, study_id, error.without_folders())
            self._parts.add([{"kind": kind, "study": study_id, "turned_away": is_turned_away}])
            self._parts.save_when_due()
        self._parts.save()

    def rates(self, patient_of: Mapping[str, str], bootstrap: Bootstrap) -> Cells:
        """Return the shares of hearts and of images without a heart that are turned away.

        Args:
            patient_of: Study to its patient.
            bootstrap: Resamples of the patients.

        Returns:
            `hearts`, each kind of `FOREIGN`, and `foreign` for all kinds: value, interval, and
            counts. What was not looked at, or failed, is undefined.
        """
        counted = self._counted()
        rates = {}
        for images in (HEARTS, FOREIGN_IMAGES, *FOREIGN):
            kinds = list(FOREIGN) if images == FOREIGN_IMAGES else [images]
            keys = [key for key in self._images if key[0] in kinds]
            values = [counted.get(key) for key in keys]
            patients = [patient_of[study_id] for _, study_id in keys]
            cells, _ = with_intervals({images: Mean(values)}, patients, bootstrap)
            rates[images] = cells[images] | {"turned_away": sum(value == 1 for value in values)}
        return rates

    def _counted(self) -> dict[tuple[str, str], float | None]:
        """Return 1 for images that are turned away, 0 for others, None for those that failed."""
        rows = self._parts.read(_SCHEMA.names).to_pylist()
        counted: dict[tuple[str, str], float | None] = {}
        for row in rows:
            is_turned_away = row["turned_away"]
            value = None if is_turned_away is None else float(is_turned_away)
            counted[row["kind"], row["study"]] = value
        return counted


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
