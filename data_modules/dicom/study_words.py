"""Tell what names of a study's series mean: words that all series share tell nothing of any."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from data_modules.dicom.physics import degrees_between
from data_modules.dicom.stacks import Stack
from data_modules.dicom.timing import CINE_PHASES
from data_modules.dicom.word_table import LOCALIZER, OTHER_VIEW, WORDS
from data_modules.dicom.words import Vocabulary

_VIEWS = ("sax", "lax_4ch", OTHER_VIEW)
# These are no cines, so that no cine shares their words.
_STILLS = ("lge", LOCALIZER)
# Planes further apart than this show different views.
_ONE_VIEW_DEGREES = 20.0
# From this number of series on a word of every protocol is the name of the examination.
_SERIES_OF_EXAMINATION = 3


class StudyWords:
    """Words of the stacks of one study.

    Many scanners write the name of the examination, such as `CARDIAC FUNCTION PERFUSION`, as the
    protocol of each series. A word that all series have is not true of all where they differ in
    what it names: cines and stills are no one kind, planes at an angle no one view.

    Args:
        stacks: Stacks of the study.
        vocabulary: Words by what they name.
    """

    def __init__(self, stacks: Sequence[Stack], vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._shared_names: dict[str, frozenset[str]] = {}
        self._shared: dict[str, frozenset[str]] = {}
        series = {stack.first.series.rpartition("/")[0] for stack in stacks}
        is_examination = len(series) >= _SERIES_OF_EXAMINATION
        differ = dict.fromkeys(WORDS, _kinds_differ(stacks))
        differ |= dict.fromkeys(_VIEWS, _views_differ(stacks))
        differ |= dict.fromkeys(_STILLS, any(stack.phases >= CINE_PHASES for stack in stacks))
        for meaning, stacks_differ in differ.items():
            if stacks_differ:
                self._shared_names[meaning] = self._in_all(map(_name, stacks), meaning)
            if stacks_differ or is_examination:
                self._shared[meaning] = self._in_all(map(description_of, stacks), meaning)

    def _in_all(self, texts: Iterable[str], meaning: str) -> frozenset[str]:
        """Return the words for a meaning that all texts hold."""
        return frozenset.intersection(*(self._vocabulary.held(text, meaning) for text in texts))

    def held(self, stack: Stack, meaning: str) -> frozenset[str]:
        """Return the words for a meaning that tell something of a stack."""
        nothing: frozenset[str] = frozenset()
        in_name = self._vocabulary.held(_name(stack), meaning)
        in_all = self._vocabulary.held(description_of(stack), meaning)
        return (in_name - self._shared_names.get(meaning, nothing)) | (
            in_all - self._shared.get(meaning, nothing)
        )

    def names(self, stack: Stack, meaning: str) -> bool:
        """Return whether a word tells that a stack is something, a key of `WORDS`."""
        return bool(self.held(stack, meaning))


def description_of(stack: Stack) -> str:
    """Return the names of series and protocol."""
    return stack.first.facts.description


def _name(stack: Stack) -> str:
    return stack.first.facts.series_name


def _kinds_differ(stacks: Sequence[Stack]) -> bool:
    """Return whether there are cines and stills."""
    return len({stack.phases >= CINE_PHASES for stack in stacks}) > 1


def _views_differ(stacks: Sequence[Stack]) -> bool:
    """Return whether planes lie at an angle to one another."""
    return any(
        degrees_between(stacks[0].first.normal, stack.first.normal) > _ONE_VIEW_DEGREES
        for stack in stacks[1:]
    )
