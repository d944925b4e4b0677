"""Keep what an earlier batch brought of a study when another batch brings more of it."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmrvlm.study.atomic_files import write_json
from cmrvlm.study.codec import META_FILE, read_meta
from cmrvlm.study.files import write_study
from cmrvlm.study.measurements import DEMOGRAPHICS
from cmrvlm.study.study import Study
from cmrvlm.study.vocabulary import SEQUENCES

RECORD = "ingest.json"
NO_SHORT_AXIS = "no short-axis cine was found"
_FROM_EARLIER = "from an earlier batch"
# A stack that was acquired again begins and ends at most this far from the first.
_SAME_PLACE_MM = 12.0


@dataclass(frozen=True)
class Batch:
    """What the files of one batch make of a study.

    Attributes:
        fingerprint: Keyed hash of its files, of the settings and of the code.
        images: Keyed hash of each of its images.
        images_of_series: Sequence to the keyed hashes of the images that it was made of.
        study: The study.
        knows_patient: Its files state whose the study is.
        row: Row of the manifest.
        decisions: Decision about each stack, as plain data.
        doubts: What somebody should look at, in words.
    """

    fingerprint: str
    images: frozenset[str]
    images_of_series: Mapping[str, Collection[str]]
    study: Study
    knows_patient: bool
    row: Mapping[str, Any]
    decisions: Sequence[Mapping[str, Any]]
    doubts: tuple[str, ...]


def read_record(folder: Path) -> dict[str, Any] | None:
    """Return what an earlier run wrote about a study, None where none did."""
    record = folder / RECORD
    # A folder is renamed into place as a whole, so a record means that all of it is there.
    if not record.is_file():
        return None
    return dict(json.loads(record.read_text(encoding="utf-8")))


def is_made_from(record: Mapping[str, Any], fingerprint: str) -> bool:
    """Return whether a batch with this fingerprint was the last, or has a series in the study."""
    sources = [source["fingerprint"] for source in record.get("series", {}).values()]
    return fingerprint in (record.get("fingerprint"), *sources)


def write_batch(folder: Path, batch: Batch) -> dict[str, Any]:
    """Write the folder of a study, with the series of earlier batches that this one lacks.

    A series of an earlier batch goes only when this batch holds all of its images, or makes it
    anew from others and as complete.

    Args:
        folder: Folder of the study.
        batch: What the new files make of it.

    Returns:
        Content of the record: row, decisions, doubts, and where each series is from.
    """
    earlier = read_record(folder)
    kept: list[str] = []
    if earlier is not None:
        kept, doubts = _kept_series(earlier, read_meta(folder)["series"], batch)
        batch = replace(batch, doubts=(*batch.doubts, *doubts))
    record = _record(batch, earlier or {}, kept)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".writing-") as temporary:
        unfinished = Path(temporary) / folder.name
        if earlier is not None:
            # Whatever else lies there, such as a mask that somebody drew, stays.
            shutil.copytree(folder, unfinished)
            for name in set(SEQUENCES) - set(kept):
                (unfinished / f"{name}.nii.gz").unlink(missing_ok=True)
        _write_study(unfinished, batch, record, kept)
        write_json(unfinished / RECORD, record)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(unfinished, folder)
    return record


def _kept_series(
    earlier: Mapping[str, Any], earlier_series: Mapping[str, Any], batch: Batch
) -> tuple[list[str], list[str]]:
    """Return the series of earlier batches that stay, and what somebody should look at.

    Args:
        earlier: Record of the study.
        earlier_series: What its `study.json` says of its series.
        batch: The new batch.
    """
    kept = []
    doubts = []
    for name in SEQUENCES:
        if not earlier["row"].get(name) or name not in earlier_series:
            continue
        images = earlier.get("series", {}).get(name, {}).get("images")
        if images and batch.images.issuperset(images):
            continue
        if name not in batch.study.series:
            kept.append(name)
        elif _is_as_complete(
            _decision_of(earlier["decisions"], name),
            _decision_of(batch.decisions, name),
            np.array(earlier_series[name]["affine"]),
            batch.study.series[name].affine,
        ):
            doubts.append(f"{name} is from other files than before, and replaces the earlier one")
        else:
            kept.append(name)
            doubts.append(f"{name} of this batch is less complete or in doubt; the earlier stays")
    return kept, doubts


def _is_as_complete(
    before: Mapping[str, Any] | None,
    after: Mapping[str, Any] | None,
    affine_before: NDArray[np.float64],
    affine_after: NDArray[np.float64],
) -> bool:
    """Return whether a series is certain, and holds the slices and frames of the earlier one.

    Args:
        before: Decision that made the earlier series.
        after: Decision that made the new one.
        affine_before: (4, 4), index of a voxel of the earlier series to mm.
        affine_after: (4, 4), the same of the new one.
    """
    if before is None or after is None or after["ambiguous"]:
        return False
    if after["slices"] < before["slices"] or after["phases"] < before["phases"]:
        return False
    normal = np.cross(affine_before[:3, 0], affine_before[:3, 1])
    normal /= np.linalg.norm(normal)
    places_before = _places_mm(affine_before, before["slices"], normal)
    places_after = _places_mm(affine_after, after["slices"], normal)
    begins = places_after.min() <= places_before.min() + _SAME_PLACE_MM
    ends = places_after.max() >= places_before.max() - _SAME_PLACE_MM
    return bool(begins and ends)


def _places_mm(
    affine: NDArray[np.float64], slices: int, normal: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the places (2,) of the first and the last slice along a normal (3,)."""
    first = affine[:3, 3]
    last = first + (slices - 1) * affine[:3, 2]
    return np.array([first @ normal, last @ normal])


def _decision_of(decisions: Sequence[Mapping[str, Any]], name: str) -> Mapping[str, Any] | None:
    """Return the decision that made a series, None where there is none."""
    return next((decision for decision in decisions if decision["sequence"] == name), None)


def _record(batch: Batch, earlier: Mapping[str, Any], kept: Sequence[str]) -> dict[str, Any]:
    """Return the content of the record of a study."""
    record: dict[str, Any] = {
        "fingerprint": batch.fingerprint,
        "row": dict(batch.row),
        "decisions": [dict(decision) for decision in batch.decisions],
        "doubts": list(batch.doubts),
        "series": {
            name: {"fingerprint": batch.fingerprint, "images": sorted(images)}
            for name, images in batch.images_of_series.items()
            if name not in kept
        },
    }
    if not kept:
        return record
    record["row"] = _united_row(batch, earlier["row"], kept)
    for decision in record["decisions"]:
        if decision["sequence"] in kept:
            decision["reasons"] = [*decision["reasons"], "the earlier one stays"]
            decision["sequence"] = None
    for name in kept:
        source = earlier.get("series", {}).get(name)
        # Records of earlier versions do not say it.
        if source is not None:
            record["series"][name] = source
        decision = _decision_of(earlier["decisions"], name)
        if decision is not None:
            notes = [note for note in decision["notes"] if note != _FROM_EARLIER]
            record["decisions"].append({**decision, "notes": [*notes, _FROM_EARLIER]})
    doubts = dict.fromkeys([*earlier["doubts"], *batch.doubts])
    if record["row"].get("sax"):
        doubts.pop(NO_SHORT_AXIS, None)
    record["doubts"] = list(doubts)
    return record


def _united_row(batch: Batch, earlier: Mapping[str, Any], kept: Sequence[str]) -> dict[str, Any]:
    """Return the row of a study of which series of earlier batches stay."""
    known = {name: value for name, value in batch.row.items() if value is not None}
    if not batch.knows_patient:
        # The date is shifted by a number of days that belongs to the patient.
        for name in ("patient_id", "date"):
            known.pop(name, None)
    row = {**dict.fromkeys(batch.row), **earlier, **known}
    for name in kept:
        row[name] = earlier[name]
    for name in set(SEQUENCES) - set(kept):
        row[name] = batch.row.get(name)
    return row


def _write_study(
    folder: Path, batch: Batch, record: Mapping[str, Any], kept: Sequence[str]
) -> None:
    """Write the series of a batch and `study.json` into a folder with those that are kept."""
    earlier = read_meta(folder)["series"] if kept else {}
    row = record["row"]
    names = ("sex", *DEMOGRAPHICS)
    person = {name: row[name] for name in names if row.get(name) is not None}
    study = replace(
        batch.study,
        patient_id=row["patient_id"],
        series={name: one for name, one in batch.study.series.items() if name not in kept},
        labels=replace(batch.study.labels, demographics=person),
    )
    write_study(study, folder)
    if not kept:
        return
    meta = read_meta(folder)
    both = {**meta["series"], **{name: earlier[name] for name in kept}}
    meta["series"] = {name: both[name] for name in SEQUENCES if name in both}
    write_json(folder / META_FILE, meta)
