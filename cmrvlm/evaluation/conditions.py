"""Under what conditions a model is asked: everything shown, subsets of sequences, and probes."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cmrvlm.errors import CmrvlmError
from cmrvlm.study.study import Study
from cmrvlm.study.vocabulary import SEQUENCES
from cmrvlm.tasks.base import Instruction

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
        return None if self.subset == FULL else self.subset.split("+")


def all_subsets(sequences: Sequence[str]) -> list[str]:
    """Every non-empty subset of the sequences, joined with `+`, the largest first."""
    sizes = range(len(sequences), 0, -1)
    return [
        "+".join(chosen) for size in sizes for chosen in itertools.combinations(sequences, size)
    ]


def conditions(
    subsets: str | Sequence[str] | None,
    probes: str | Sequence[str] | None,
    sequences: Sequence[str],
) -> list[Condition]:
    """The conditions that a configuration asks for; the first shows everything and probes nothing.

    Args:
        subsets: `all`, names such as `sax+lge`, or None.
        probes: `all`, names of `PROBES`, or None.
        sequences: Sequences that the model reads.

    Raises:
        CmrvlmError: A subset or a probe is unknown.
    """
    known = all_subsets([name for name in SEQUENCES if name in sequences])
    wanted = known if subsets == "all" else _listed(subsets)
    ordered = {frozenset(one.split("+")): one for one in known}
    wanted = [ordered.get(frozenset(one.split("+")), one) for one in wanted]
    asked = list(PROBES) if probes == "all" else _listed(probes)
    for name, given, allowed in (("subsets", wanted, known), ("probes", asked, list(PROBES))):
        for one in given:
            if one not in allowed:
                raise CmrvlmError(
                    f"unknown: '{one}'", field=name, remedy=f"Known: {', '.join(allowed)}, or all."
                )
    return [
        Condition(),
        *(Condition(probe=one) for one in asked),
        *(Condition(subset=one) for one in wanted),
    ]


def _listed(given: str | Sequence[str] | None) -> list[str]:
    return [] if not given else [given] if isinstance(given, str) else list(given)


def blackened(study: Study) -> Study:
    """The study with black images; what is asked and what is true stay."""
    return study.with_series(
        {
            name: replace(one, image=np.zeros(one.image.shape, dtype=np.float32))
            for name, one in study.series.items()
        }
    )


def with_images_of(study: Study, other: Study) -> Study:
    """The study with another patient's images in place of its own, where the other has the sequence.

    A mask stays where it fits the other image, so that masks are scored against the patient who was asked about.
    """
    series = {}
    for name, own in study.series.items():
        if name in other.series:
            given = other.series[name]
            fits = own.mask is not None and own.mask.shape == given.image.shape
            series[name] = replace(
                own,
                image=given.image,
                mask=own.mask if fits else None,
                phases={},
                levels=(),
                frame_times_ms=given.frame_times_ms,
                slice_places_mm=given.slice_places_mm,
            )
    return study.with_series(series)


def askable(instruction: Instruction, study: Study) -> bool:
    """Whether the study's series have the frames, slices and masks that an instruction needs."""
    for view in instruction.case.views:
        series = study.series.get(view.sequence)
        if series is None:
            return False
        slices, frames = series.image.shape[:2]
        if (view.slice or 0) >= slices or (view.frame or 0) >= frames:
            return False
    target = instruction.case.mask
    return target is None or study.series[target.sequence].mask is not None


def partners(patient_of: Mapping[str, str], study_ids: Sequence[str]) -> dict[str, str]:
    """For each study another patient's: the next one in an order by hash, round at the end; none for one patient alone.

    The order of the ids may follow the labels, that of their hashes does not.
    """
    found = {}
    order = sorted(study_ids, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    for index, study in enumerate(order):
        later = [*order[index + 1 :], *order[:index]]
        other = next((one for one in later if patient_of[one] != patient_of[study]), None)
        if other is not None:
            found[study] = other
    return found
