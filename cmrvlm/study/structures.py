"""The one table of structures in masks: values, names, colours, and which is part of which.

A structure is added here, and by a `conf/task` file that asks for it; everything else is derived
from the table.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Structure:
    """One structure of the heart.

    Attributes:
        name: Name used in code, configs and files.
        value: Canonical value in masks.
        en: English name.
        zh: Chinese name.
        synonyms: Other names, either language, that mean the same.
        sequences: Sequences that it is drawn on, first the one that usually shows it.
        color: Colour in figures, as `#rrggbb`.
        layer: Drawing order of predicted masks: where structures overlap, the highest layer
            remains.
        within: Structure that this one is a part of. Its voxels count as that structure too, and a
            predicted one is limited to it.
        may_be_absent: A heart may lack it, so that "there is none" is an answer.
    """

    name: str
    value: int
    en: str
    zh: str
    synonyms: tuple[str, ...]
    sequences: tuple[str, ...]
    color: str
    layer: int
    within: str | None = None
    may_be_absent: bool = False

    @property
    def usual_sequence(self) -> str:
        """Sequence that usually shows the structure."""
        return self.sequences[0]


_STRUCTURES = (
    Structure(
        name="lv",
        value=1,
        en="left ventricular blood pool",
        zh="左心室腔",
        synonyms=(
            "left ventricular cavity",
            "LV cavity",
            "LV blood pool",
            "blood pool",
            "left ventricle",
            "LV",
            "左心室血池",
            "血池",
            "左室腔",
            "左心室",
            "左室",
        ),
        sequences=("sax", "lax_4ch", "lge"),
        color="#e6194b",
        layer=7,
    ),
    Structure(
        name="myo",
        value=2,
        en="left ventricular myocardium",
        zh="左心室心肌",
        synonyms=(
            "LV myocardium",
            "LV wall",
            "left ventricular wall",
            "myocardium",
            "左心室壁",
            "左室心肌",
            "左室壁",
            "心肌",
        ),
        sequences=("sax", "lax_4ch", "lge"),
        color="#3cb44b",
        layer=4,
    ),
    Structure(
        name="rv",
        value=3,
        en="right ventricular cavity",
        zh="右心室腔",
        synonyms=(
            "right ventricle",
            "RV",
            "RV cavity",
            "right ventricular blood pool",
            "RV blood pool",
            "右心室",
            "右心室血池",
            "右室腔",
            "右室血池",
            "右室",
        ),
        sequences=("sax", "lax_4ch", "lge"),
        color="#4363d8",
        layer=3,
    ),
    Structure(
        name="scar",
        value=4,
        en="myocardial scar",
        zh="心肌瘢痕",
        synonyms=("scar", "infarct scar", "LV scar", "瘢痕", "梗死瘢痕"),
        sequences=("lge",),
        color="#ffe119",
        layer=5,
        within="myo",
        may_be_absent=True,
    ),
    Structure(
        name="no_reflow",
        value=5,
        en="no-reflow zone",
        zh="无复流区",
        synonyms=("no-reflow", "microvascular obstruction", "MVO", "微血管阻塞", "微循环阻塞"),
        sequences=("lge",),
        color="#911eb4",
        layer=6,
        within="scar",
        may_be_absent=True,
    ),
    Structure(
        name="la",
        value=6,
        en="left atrium",
        zh="左心房",
        synonyms=("LA", "left atrial cavity", "左房"),
        sequences=("lax_4ch",),
        color="#f58231",
        layer=1,
    ),
    Structure(
        name="ra",
        value=7,
        en="right atrium",
        zh="右心房",
        synonyms=("RA", "right atrial cavity", "右房"),
        sequences=("lax_4ch",),
        color="#42d4f4",
        layer=2,
    ),
)

STRUCTURE_TABLE = {structure.name: structure for structure in _STRUCTURES}
LAYERS = tuple(sorted(_STRUCTURES, key=lambda structure: structure.layer))


def chain_of(name: str) -> list[str]:
    """Return a structure and those around it, such as `no_reflow`, `scar`, `myo`."""
    chain = []
    outer: str | None = name
    while outer is not None:
        chain.append(outer)
        outer = STRUCTURE_TABLE[outer].within
    return chain


def _values_of(name: str) -> tuple[int, ...]:
    """Return the mask values of a structure and of everything within it."""
    return tuple(part.value for part in _STRUCTURES if name in chain_of(part.name))


# Mask values that count as a structure: the myocardium includes its scar, and the scar its core
# without reflow.
STRUCTURE_VALUES = {name: _values_of(name) for name in STRUCTURE_TABLE}
