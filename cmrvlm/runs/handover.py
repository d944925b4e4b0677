"""Weights from one stage to the next: whole parts move or stay, and a table says which."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table
from safetensors.torch import load_file
from torch import Tensor, nn

from cmrvlm.errors import CmrvlmError
from cmrvlm.language_model.finite import check_weights
from cmrvlm.runs.run_claim import WEIGHTS
from cmrvlm.runs.run_folder import own_weights

_KEYED = ("encoders", "projectors", "mask_head", "image_projection")


@dataclass(frozen=True)
class Moved:
    """What became of one part.

    Attributes:
        part: For example `encoders.sax` or `llm`.
        status: `moved`, `fresh` (the earlier run had none) or `left behind` (this model has none).
        parameters: Number of values.
    """

    part: str
    status: str
    parameters: int


def part_of(key: str) -> str:
    """Part that a weight belongs to: the first name, or the first two where a part is kept for each sequence."""
    names = key.split(".")
    keyed = names[0] in _KEYED or names[1:2] in (["rows"], ["out_rows"])
    return ".".join(names[:2]) if keyed else names[0]


def load_parts(model: nn.Module, weights: dict[str, Tensor], source: Path) -> list[Moved]:
    """Copy every part that both sides have.

    Raises:
        CmrvlmError: A part is there but its weights differ in name or shape, or nothing moves at all.
    """
    wanted: dict[str, dict[str, Tensor]] = defaultdict(dict)
    given: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for key, value in own_weights(model).items():
        wanted[part_of(key)][key] = value
    for key, value in weights.items():
        given[part_of(key)][key] = value
    rows = []
    for part in sorted(wanted.keys() | given.keys()):
        here, there = wanted.get(part, {}), given.get(part, {})
        if here and there:
            _check(part, here, there, source)
        status = "moved" if here and there else "fresh" if here else "left behind"
        rows.append(Moved(part, status, sum(value.numel() for value in (here or there).values())))
    if not any(row.status == "moved" for row in rows):
        raise CmrvlmError(
            "nothing in the earlier run fits this model",
            file=source,
            field="stage.init_from",
            remedy="Give the run of the stage before.",
        )
    model.load_state_dict(
        {key: value for key, value in weights.items() if part_of(key) in wanted}, strict=False
    )
    return rows


def _check(part: str, here: dict[str, Tensor], there: dict[str, Tensor], source: Path) -> None:
    odd = sorted(here.keys() ^ there.keys())
    odd += [
        key for key in sorted(here.keys() & there.keys()) if here[key].shape != there[key].shape
    ]
    if odd:
        shapes = f"{tuple(there[odd[0]].shape) if odd[0] in there else 'absent'} in the run"
        raise CmrvlmError(
            f"{len(odd)} weights of part '{part}' do not fit, the first is '{odd[0]}' ({shapes})",
            file=source,
            field="stage.init_from",
            remedy="Build both stages with the same encoders, language model and adapter.",
        )


def hand_over(model: nn.Module, run: Path) -> list[Moved]:
    """Load the parts of an earlier run's weights into a model."""
    path = run / WEIGHTS
    if not path.is_file():
        raise CmrvlmError(
            "there is no model here",
            file=path,
            field="stage.init_from",
            remedy="Give the folder of a finished run.",
        )
    weights = load_file(path)
    check_weights(weights.items(), path, "stage.init_from", "Train the earlier stage again.")
    return load_parts(model, weights, path)


def moved_table(rows: list[Moved]) -> Table:
    """The hand-over as a table."""
    table = Table("part", "status", "parameters", title="Hand-over from the earlier stage")
    for row in rows:
        table.add_row(row.part, row.status, f"{row.parameters:,}")
    return table
