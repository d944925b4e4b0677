"""Define conditions under which a model is asked: everything shown, subsets, and probes."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cmrvlm.errors import CmrvlmError
from cmrvlm.instructions.question import Question
from cmrvlm.study.study import Study
from cmrvlm.study.vocabulary import SEQUENCES

FULL = "full"
PROBES = {
    "blind": "every image is black",
    "swapped": "the images of another patient",
    "prompt": "the prompt alone, without a place for images",
    "paraphrase": "wordings that training never shows",
}


@dataclass(frozen=True)
class Condition:
    """One way of asking all questions.

    Attributes:
        subset: Sequences shown, joined with `+`; `full` shows all that there are.
        probe: One of `PROBES`, or nothing.
    """

    subset: str = FULL
    probe: str = ""

    @property
    def name(self) -> str:
        """Name in tables and files."""
        return self.probe or self.subset

    @property
    def shown(self) -> list[str] | None:
        """Sequences to show, None for all."""
        if self.subset == FULL:
            return None
        return self.subset.split("+")


def all_subsets(sequences: Sequence[str]) -> list[str]:
    """Return every non-empty subset of the sequences, joined with `+`, the largest first."""
    subsets: list[str] = []
    for size in range(len(sequences), 0, -1):
        for chosen in itertools.combinations(sequences, size):
            subsets.append("+".join(chosen))
    return subsets


def conditions(
    subsets: str | Sequence[str] | None,
    probes: str | Sequence[str] | None,
    sequences: Sequence[str],
) -> list[Condition]:
    """Return the conditions of a configuration; the first shows everything and probes nothing.

    Args:
        subsets: `all`, names such as `sax+lge`, or None.
        probes: `all`, names of `PROBES`, or None.
        sequences: Sequences that the model reads.

    Raises:
        CmrvlmError: A subset or a probe is unknown.
    """
    known_subsets = all_subsets([name for name in SEQUENCES if name in sequences])
    # `lge+sax` means the same as `sax+lge`; an unknown name stays as given, for the message.
    in_order = {frozenset(subset.split("+")): subset for subset in known_subsets}
    chosen_subsets: list[str] = []
    for subset in _listed(subsets, known_subsets):
        members = frozenset(subset.split("+"))
        chosen_subsets.append(in_order.get(members, subset))
    chosen_probes = _listed(probes, list(PROBES))
    _check_known("subsets", chosen_subsets, known_subsets)
    _check_known("probes", chosen_probes, list(PROBES))
    return [
        Condition(),
        *(Condition(probe=probe) for probe in chosen_probes),
        *(Condition(subset=subset) for subset in chosen_subsets),
    ]


def _listed(given: str | Sequence[str] | None, everything: list[str]) -> list[str]:
    """Return a setting as a list: `all` is everything, None is nothing."""
    if not given:
        return []
    if given == "all":
        return everything
    if isinstance(given, str):
        return [given]
    return list(given)


def _check_known(field: str, given: Sequence[str], known: Sequence[str]) -> None:
    """Check that all names of a setting are known.

    Raises:
        CmrvlmError: A name is not.
    """
    for name in given:
        if name not in known:
            raise CmrvlmError(
                f"unknown: '{name}'", field=field, remedy=f"Known: {', '.join(known)}, or all."
            )


def blackened(study: Study) -> Study:
    """Return the study with black images; questions and truth stay."""
    return study.with_series(
        {
            name: replace(series, image=np.zeros(series.image.shape, dtype=np.float32))
            for name, series in study.series.items()
        }
    )


def with_images_of(study: Study, other: Study) -> Study:
    """Return the study with another patient's images, where the other has the sequence.

    A mask stays where it fits the other image, so that masks are scored against the patient who
    was asked about.
    """
    series = {}
    for name, original in study.series.items():
        if name not in other.series:
            continue
        shown = other.series[name]
        mask = original.mask
        if mask is not None and mask.shape != shown.image.shape:
            mask = None
        series[name] = replace(
            original,
            image=shown.image,
            mask=mask,
            phases={},
            levels=(),
            frame_times_ms=shown.frame_times_ms,
            slice_places_mm=shown.slice_places_mm,
        )
    return study.with_series(series)


def askable(question: Question, study: Study) -> bool:
    """Return whether the study's series have the frames, slices and masks that a question needs."""
    for view in question.views:
        series = study.series.get(view.sequence)
        if series is None:
            return False
        slices, frames = series.image.shape[:2]
        if (view.slice or 0) >= slices or (view.frame or 0) >= frames:
            return False
    if question.region is None:
        return True
    return study.series[question.region.sequence].mask is not None


def _hash(name: str) -> str:
    """Return the SHA-256 of a name."""
    content = name.encode()
    return hashlib.sha256(content).hexdigest()


def partners(patient_of: Mapping[str, str], study_ids: Sequence[str]) -> dict[str, str]:
    """Return for each study a study of another patient.

    It is the next one in an order by hash, from the start again at the end. The order of the ids
    may follow the labels, that of their hashes does not.

    Args:
        patient_of: Study to its patient.
        study_ids: All studies.

    Returns:
        Study to the other study; without those for whom there is no other patient.
    """
    partner_of = {}
    order = sorted(study_ids, key=_hash)
    for index, study in enumerate(order):
        for step in range(1, len(order)):
            other = order[(index + step) % len(order)]
            if patient_of[other] != patient_of[study]:
                partner_of[study] = other
                break
    return partner_of
