"""What somebody should look at after a study was read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cmrvlm.study.study import Series
from data_modules.dicom.batches import NO_SHORT_AXIS
from data_modules.dicom.geometry import places_among
from data_modules.dicom.physics import SAME_STACK_DEGREES, degrees_between
from data_modules.dicom.recognise import Decision
from data_modules.dicom.stacks import Stacks
from data_modules.dicom.studies import StudyFiles


def doubts_about(
    files: StudyFiles,
    stacks: Stacks,
    decisions: Sequence[Decision],
    series: Mapping[str, Series],
) -> tuple[str, ...]:
    """Return what somebody should look at."""
    doubts = list(files.notes)
    if stacks.stacks and "sax" not in series:
        doubts.append(NO_SHORT_AXIS)
    if _parallel_cines_left_out(decisions):
        doubts.append("two cines that were left out are parallel: one may be the short axis")
    doubts += dict.fromkeys(decision.doubt for decision in decisions if decision.doubt)
    doubts += _slices_of_other_size(decisions)
    return tuple(doubts)


def _slices_of_other_size(decisions: Sequence[Decision]) -> list[str]:
    """Return what is said of slices that a stack lacks because their images have another size."""
    doubts = []
    for taken in (decision for decision in decisions if decision.sequence):
        first = taken.stack.first
        for other in (decision.stack for decision in decisions if not decision.sequence):
            if other.first.series != first.series or other.first.shape == first.shape:
                continue
            if degrees_between(other.first.normal, first.normal) < SAME_STACK_DEGREES:
                numbers = places_among(taken.stack.frames, other.images)
                size = f"{other.first.shape[0]} x {other.first.shape[1]}"
                doubts.append(
                    f"{taken.sequence} lacks images at slice {numbers} that have {size} pixels"
                )
    return doubts


def _parallel_cines_left_out(decisions: Sequence[Decision]) -> bool:
    """Return whether two cines that were left out are parallel: a short axis may be among them."""
    cines = [decision for decision in decisions if decision.is_cine and not decision.sequence]
    for index, first in enumerate(cines):
        for second in cines[index + 1 :]:
            normals = first.stack.first.normal, second.stack.first.normal
            if degrees_between(*normals) < SAME_STACK_DEGREES:
                return True
    return False
