"""HTML page of a check: faults, counts, and a picture of every study."""

from __future__ import annotations

import base64
import html
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cmrvlm.study.drawing import legend, overlay, structures_in
from cmrvlm.study.study import Series, Study
from data_modules.checking.faults import ERROR, WARNING, Fault

_STYLE = """
body{font:14px/1.45 system-ui,sans-serif;margin:2em auto;max-width:1180px;padding:0 1em;color:#222}
table{border-collapse:collapse;margin:.6em 0 1.4em}
td,th{border:1px solid #ccc;padding:.2em .6em;text-align:left}
.error{color:#b00020}.warning{color:#8a5a00}.pass{color:#1b6e2c}
figure{display:inline-block;margin:.4em}figcaption{font-size:12px}img{height:150px}
.counts{display:flex;gap:3em}.counts div{max-width:30em}
"""
# A browser runs nothing on the page and loads nothing for it, whatever stands there.
_POLICY = (
    "<meta http-equiv=Content-Security-Policy "
    "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">"
)
# Faults that the page lists. A browser takes long for more, and nobody reads them there.
_MOST_FAULTS = 2000


@dataclass(frozen=True)
class _Tile:
    """A picture of a montage.

    Attributes:
        title: Sequence and phase.
        picture: Grey values (H, W).
        masks: Structure to its mask (H, W).
    """

    title: str
    picture: NDArray[np.float32]
    masks: dict[str, NDArray[np.bool_]] = field(default_factory=dict)


def montage(study: Study) -> bytes:
    """Draw the middle slice of each series with its masks, as a PNG.

    A cine is shown at ED and ES where its phases are known, else at its first frame and, on the
    short axis, at its middle one.
    """
    tiles = []
    for sequence, series in study.series.items():
        for label, frame in _shown_frames(sequence, series).items():
            title = f"{sequence} {label}".strip()
            tiles.append(_tile(title, series, frame))

    columns = max(1, len(tiles))
    figure = Figure(figsize=(1.9 * columns, 2.1))
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, columns, squeeze=False)[0]
    for axis, tile in zip(axes, tiles, strict=False):
        picture = tile.picture - tile.picture.min()
        overlay(axis, picture, tile.masks, tile.title)
    legend(figure, {name for tile in tiles for name in tile.masks})

    # Without the software's version the same study always gives the same bytes.
    metadata = {"Software": None}
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=75, bbox_inches="tight", metadata=metadata)
    return file.getvalue()


def write_page(
    path: Path,
    title: str,
    studies: int,
    faults: Sequence[Fault],
    counts: Mapping[str, Mapping[str, int]],
    pictures: Mapping[str, Path],
) -> None:
    """Write one HTML file that needs no other file.

    Args:
        path: File to write.
        title: Heading.
        studies: Number of studies that were checked.
        faults: Faults of all studies and of the whole set.
        counts: Name of a table to its rows of numbers.
        pictures: Study id to the file of its montage.
    """
    verdict, summary = _verdict(faults)
    heading = html.escape(title)
    blocks = [
        f"<!doctype html><meta charset=utf-8>{_POLICY}<title>{heading}</title><style>{_STYLE}</style>",
        f"<h1>{heading}</h1><p class={verdict}>{studies} studies: {summary}</p>",
        *_fault_blocks(faults),
        "<div class=counts>",
    ]
    for name, table in counts.items():
        blocks += _count_blocks(name, table)
    blocks.append("</div><h2>Pictures</h2>")
    for study_id, picture in pictures.items():
        blocks.append(_figure(study_id, picture))
    path.write_text("\n".join(blocks), encoding="utf-8")


def _shown_frames(sequence: str, series: Series) -> dict[str, int]:
    """Return label to index of the frames that a montage shows of a series."""
    frames = series.image.shape[1]
    if frames == 1:
        return {"": 0}
    if series.phases:
        return {phase.upper(): frame for phase, frame in series.phases.items()}
    if sequence == "sax":
        return {"first": 0, "middle": frames // 2}
    return {"first": 0}


def _tile(title: str, series: Series, frame: int) -> _Tile:
    """Return the middle slice of a series at a frame, with the masks of its structures."""
    middle = series.image.shape[0] // 2
    picture = np.asarray(series.image[middle, frame], dtype=np.float32)  # (H, W)
    if series.mask is None:
        return _Tile(title, picture)
    label_map = np.asarray(series.mask[middle, frame])  # (H, W)
    return _Tile(title, picture, structures_in(label_map))


def _verdict(faults: Sequence[Fault]) -> tuple[str, str]:
    """Return the CSS class of the verdict and the verdict in words."""
    if not faults:
        return "pass", "nothing is wrong"
    errors = sum(fault.level == ERROR for fault in faults)
    if errors:
        return ERROR, f"{errors} errors, {len(faults) - errors} warnings"
    return WARNING, f"{len(faults)} warnings"


def _fault_blocks(faults: Sequence[Fault]) -> list[str]:
    """Return the table of how often each fault occurs, and that of all faults."""
    if not faults:
        return []
    frequency = Counter((fault.level, fault.code) for fault in faults)
    kinds = []
    for (level, code), count in frequency.most_common():
        kinds.append((level, code, str(count)))
    lines = []
    for fault in faults[:_MOST_FAULTS]:
        lines.append((fault.level, fault.code, fault.study, fault.text))
    return [
        "<h2>Kinds</h2>",
        _table(("level", "kind", "times"), kinds),
        "<h2>Faults</h2>",
        _table(("level", "kind", "study", "what"), lines),
        *_rest_of_faults(len(faults)),
    ]


def _rest_of_faults(count: int) -> list[str]:
    """Return a line about the faults that the page leaves out, where there are such."""
    if count <= _MOST_FAULTS:
        return []
    return [f"<p>and {count - _MOST_FAULTS} more, which are in check.json</p>"]


def _count_blocks(name: str, table: Mapping[str, int]) -> list[str]:
    """Return a table of counts, with the names of what no study has below it."""
    present = []
    absent = []
    for label, count in table.items():
        if count:
            present.append((label, str(count)))
        else:
            absent.append(label)

    heading = html.escape(name.capitalize())
    blocks = [f"<div><h2>{heading}</h2>"]
    if present:
        blocks.append(_table(("", "studies"), present))
    if absent:
        names = html.escape(", ".join(absent))
        blocks.append(f"<p>none: {names}</p>")
    return [*blocks, "</div>"]


def _figure(study_id: str, picture: Path) -> str:
    """Return a picture, embedded, with the study's id below it."""
    data = base64.b64encode(picture.read_bytes()).decode()
    image = f"<img src='data:image/png;base64,{data}' alt=''>"
    caption = f"<figcaption>{html.escape(study_id)}</figcaption>"
    return f"<figure>{image}{caption}</figure>"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table whose rows are coloured by the level in their first cell."""
    lines = [f"<tr>{_cells('th', head)}</tr>"]
    for row in rows:
        style = "plain"
        if row[0] in (ERROR, WARNING):
            style = row[0]
        lines.append(f"<tr class={style}>{_cells('td', row)}</tr>")
    return f"<table>{''.join(lines)}</table>"


def _cells(tag: str, texts: Sequence[str]) -> str:
    """Return texts as cells of a row; the tag is `th` or `td`."""
    cells = [f"<{tag}>{html.escape(text)}</{tag}>" for text in texts]
    return "".join(cells)
