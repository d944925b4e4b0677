"""Recognise requests for masks in a user's own words, in English and Chinese."""

from __future__ import annotations

import re

from cmrvlm.reports.reader import any_of, terms_named
from cmrvlm.study.vocabulary import STRUCTURE_TERMS


def _named(*structures: str) -> str:
    """Return a pattern for any name of the structures."""
    terms = [STRUCTURE_TERMS[structure] for structure in structures]
    names = [name for term in terms for name in (term.en, term.zh, *term.synonyms)]
    return f"(?:{any_of(tuple(names)).pattern})"


# A request begins with what is to be done, or asks where something is. What can be done to more than structures, as
# "show" and "mark", must have one for its object: "show me the ejection fraction of the left ventricle" wants no mask.
_STRUCTURE = _named(*STRUCTURE_TERMS)
_FILLERS = r"""(?:\s+(?:me|all|both|each|every|the|a|an|of|for|to|that|where|around|belongs?|whole|entire|endocardial|
    epicardial|masks?|contours?|outlines?|lines?|borders?|boundar(?:y|ies)|segmentations?|pixels?|voxels?|cavity|chamber))*"""
_GOES_ON = r"and|or|of|in|on|within|inside|at|during|over|throughout|as|with|please|masks?|contours?|borders?"
_ASKS_FOR_MASKS = re.compile(
    rf"""^\W*(?:(?:please|can\s+you|could\s+you|would\s+you)\s+)*(?:
        (?:segment|contour|delineate|give(?:\s+me)?(?:\s+(?:a|the))?\s+(?:masks?|contours?|segmentations?))\b
      | (?:outline|mark|show|draw|highlight|where\s+(?:is|are)){_FILLERS}\s+{_STRUCTURE}
        (?=\W*$|\s*[,.;:?!(]|\s+(?:{_GOES_ON})\b|\s+(?:is|are|lies?)\W*$)
      )
    | 分割|勾画|掩膜|在哪里
    | ^\W*请?(?:在[^，。]*?上)?(?:显示|标出|标记|画出|描出|给出)(?:所有|全部|属于)*{_STRUCTURE}
      (?=\W*$|\s*[，。、；,.;]|[和与及以]|[内中里]?的(?:轮廓|边界|位置|范围|所有像素|像素|{_STRUCTURE}))""",
    re.IGNORECASE | re.VERBOSE,
)


# "The scar of the LV wall" and "左心室的心肌" name one structure and where it lies.
_WHERE_IT_LIES = re.compile(
    rf"(?P<what>{_STRUCTURE})\s+(?:of|in|within|inside)\s+(?:the\s+)?{_named('lv', 'myo')}"
    rf"|{_named('lv', 'myo')}[中内里]?的(?P<own>{_STRUCTURE})",
    re.IGNORECASE,
)


def structures_asked(question: str) -> list[str]:
    """Structures that a question in a user's words wants masks of; empty when it asks for something else.

    Each is then asked for by itself, so that a question for several gives what a question for each would.
    """
    if not _ASKS_FOR_MASKS.search(question):
        return []
    return terms_named(
        _WHERE_IT_LIES.sub(lambda one: one["what"] or one["own"], question), STRUCTURE_TERMS
    )
