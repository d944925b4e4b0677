"""The page that a check ends in: faults, counts, and pictures of every study."""

from __future__ import annotations

import base64
import html
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cmrvlm.study.drawing import overlay
from cmrvlm.study.study import Series, Study
from cmrvlm.study.vocabulary import STRUCTURES
from data_modules.checking.checks import ERROR, Checked, Fault

_STYLE = """
body{font:14px/1.45 system-ui,sans-serif;margin:2em auto;max-width:1180px;padding:0 1em;color:#222}
table{border-collapse:collapse;margin:.6em 0 1.4em}td,th{border:1px solid #ccc;padding:.2em .6em;text-align:left}
.error{color:#b00020}.warning{color:#8a5a00}.pass{color:#1b6e2c}figure{display:inline-block;margin:.4em}
figcaption{font-size:12px}img{height:150px}.counts{display:flex;gap:3em}.counts div{max-width:30em}
"""


def montage(study: Study) -> bytes:
    """A PNG of middle slices with masks: short axis at ED and ES (else the first and middle frame), 4CH, LGE."""
    tiles: list[tuple[str, NDArray[np.floating], dict[str, NDArray[np.bool_]]]] = []
    for name, series in study.series.items():
        for label, frame in _frames(name, series).items():
            middle = series.image.shape[0] // 2
            picture = np.asarray(series.image[middle, frame], dtype=np.float32)
            masks = {}
            if series.mask is not None:
                plane = np.asarray(series.mask[middle, frame])
                masks = {one: plane == STRUCTURES[one] for one in ("lv", "myo", "rv")}
            tiles.append((f"{name} {label}".strip(), picture, masks))
    figure = Figure(figsize=(1.9 * max(1, len(tiles)), 2.1))
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, max(1, len(tiles)), squeeze=False)[0]
    for axis, (title, picture, masks) in zip(axes, tiles, strict=False):
        overlay(axis, picture - picture.min(), masks, title)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=75, bbox_inches="tight", metadata={"Software": None})
    return file.getvalue()


def _frames(name: str, series: Series) -> dict[str, int]:
    if series.image.shape[1] == 1:
        return {"": 0}
    if series.phases:
        return {phase.upper(): frame for phase, frame in series.phases.items()}
    return {"first": 0, "middle": series.image.shape[1] // 2} if name == "sax" else {"first": 0}


def write_page(
    path: Path,
    title: str,
    checked: Sequence[Checked],
    faults: Sequence[Fault],
    counts: Mapping[str, Mapping[str, int]],
    pictures: Mapping[str, Path],
) -> None:
    """Write one HTML file that needs no other.

    Args:
        path: Where.
        title: Heading.
        checked: All studies.
        faults: Everything that is wrong.
        counts: Tables of numbers by name.
        pictures: Study to its montage.
    """
    errors = sum(one.level == ERROR for one in faults)
    verdict = "error" if errors else "warning" if faults else "pass"
    said = {
        "error": f"{errors} errors, {len(faults) - errors} warnings",
        "warning": f"{len(faults)} warnings",
        "pass": "nothing is wrong",
    }[verdict]
    parts = [
        f"<!doctype html><meta charset=utf-8><title>{html.escape(title)}</title><style>{_STYLE}</style>",
        f"<h1>{html.escape(title)}</h1><p class={verdict}>{len(checked)} studies: {said}</p>",
    ]
    kinds = Counter((one.level, one.code) for one in faults)
    if kinds:
        rows = [(level, code, str(count)) for (level, code), count in kinds.most_common()]
        parts += ["<h2>Kinds</h2>", _table(("level", "kind", "times"), rows)]
        lines = [(one.level, one.code, one.study, one.text) for one in faults]
        parts += ["<h2>Faults</h2>", _table(("level", "kind", "study", "what"), lines)]
    parts.append("<div class=counts>")
    for name, table in counts.items():
        there = [(key, str(value)) for key, value in table.items() if value]
        none = ", ".join(key for key, value in table.items() if not value)
        parts += [
            f"<div><h2>{html.escape(name.capitalize())}</h2>",
            _table(("", "studies"), there),
            f"<p>none: {html.escape(none)}</p></div>" if none else "</div>",
        ]
    parts.append("</div><h2>Pictures</h2>")
    for study, picture in pictures.items():
        data = base64.b64encode(picture.read_bytes()).decode()
        parts.append(
            f"<figure><img src='data:image/png;base64,{data}' alt=''><figcaption>{html.escape(study)}"
            "</figcaption></figure>"
        )
    path.write_text("\n".join(parts), encoding="utf-8")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = "".join(f"<th>{html.escape(one)}</th>" for one in head)
    lines = [
        f"<tr class={row[0] if row[0] in ('error', 'warning') else 'plain'}>"
        + "".join(f"<td>{html.escape(one)}</td>" for one in row)
        + "</tr>"
        for row in rows
    ]
    return f"<table><tr>{cells}</tr>{''.join(lines)}</table>"
