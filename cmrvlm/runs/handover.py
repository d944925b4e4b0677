"""Hand weights over from one stage to the next, part by part, and list the parts in a table."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from rich.markup import escape
from rich.table import Table
from torch import Tensor, nn

from cmrvlm.errors import CmrvlmError
from cmrvlm.language_model.finite import check_weights
from cmrvlm.runs.fingerprints import check_fingerprints
from cmrvlm.runs.run_checks import check_base
from cmrvlm.runs.run_claim import WEIGHTS
from cmrvlm.runs.run_files import read_weights
from cmrvlm.runs.run_folder import own_weights

# Modules that hold one part for each sequence.
_PER_SEQUENCE = ("encoders", "projectors", "mask_head", "image_projection")


@dataclass(frozen=True)
class Moved:
    """The outcome of the hand-over for one part of the model.

    Attributes:
        part: Name such as `encoders.sax` or `llm`.
        status: `moved`, `fresh` (the earlier run has no such part) or `left behind` (this model
            has no such part).
        parameters: Number of its parameters.
    """

    part: str
    status: str
    parameters: int


def part_of(key: str) -> str:
    """Return the part that a weight belongs to.

    Args:
        key: Key of the state dict.

    Returns:
        First name of the key, or its first two for parts per sequence and for the rows that are
        added to the token embeddings.
    """
    names = key.split(".")
    is_embedding_row = names[1:2] in (["rows"], ["out_rows"])
    if names[0] in _PER_SEQUENCE or is_embedding_row:
        return ".".join(names[:2])
    return names[0]


def load_parts(model: nn.Module, weights: dict[str, Tensor], source: Path) -> list[Moved]:
    """Copy every part that both the model and the weights have.

    Args:
        model: Model that takes the weights.
        weights: Key to weight of any shape, as in a state dict.
        source: File of the weights, for errors.

    Returns:
        Outcome for each part of the model or of the weights.

    Raises:
        CmrvlmError: The weights of a part differ in name or shape, or no part is copied.
    """
    current_parts = _by_part(own_weights(model))
    earlier_parts = _by_part(weights)
    rows = []
    for part in sorted(current_parts.keys() | earlier_parts.keys()):
        current = current_parts.get(part, {})
        earlier = earlier_parts.get(part, {})
        if current and earlier:
            _check(part, current, earlier, source)
            status = "moved"
        elif current:
            status = "fresh"
        else:
            status = "left behind"
        parameters = sum(value.numel() for value in (current or earlier).values())
        rows.append(Moved(part, status, parameters))

    if not any(row.status == "moved" for row in rows):
        raise CmrvlmError(
            "nothing in the earlier run fits this model",
            file=source,
            field="stage.init_from",
            remedy="Give the run of the stage before.",
        )
    moved = {key: value for key, value in weights.items() if part_of(key) in current_parts}
    model.load_state_dict(moved, strict=False)
    return rows


def _by_part(weights: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Group the weights of a state dict by part."""
    parts: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for key, value in weights.items():
        parts[part_of(key)][key] = value
    return parts


def _check(part: str, current: dict[str, Tensor], earlier: dict[str, Tensor], source: Path) -> None:
    """Refuse weights of a part that differ in name or shape.

    Raises:
        CmrvlmError: They differ.
    """
    differing = sorted(current.keys() ^ earlier.keys())
    differing += [
        key
        for key in sorted(current.keys() & earlier.keys())
        if current[key].shape != earlier[key].shape
    ]
    if differing:
        first = differing[0]
        shape = "absent"
        if first in earlier:
            shape = str(tuple(earlier[first].shape))
        raise CmrvlmError(
            f"{len(differing)} weights of part '{part}' do not fit, "
            f"the first is '{first}' ({shape} in the run)",
            file=source,
            field="stage.init_from",
            remedy="Build both stages with the same encoders, language model and adapter.",
        )


def hand_over(model: nn.Module, run: Path) -> list[Moved]:
    """Load the parts of an earlier run's weights into a model.

    Args:
        model: Model that takes the weights.
        run: Folder of the earlier run.

    Returns:
        Outcome for each part.

    Raises:
        CmrvlmError: The run has no weights, some are not finite, they do not fit, parts of the run
            belong to another, or it was trained on another base model.
    """
    path = run / WEIGHTS
    if not path.exists():
        raise CmrvlmError(
            "there is no model here",
            file=path,
            field="stage.init_from",
            remedy="Give the folder of a finished run.",
        )
    check_fingerprints(run, "stage.init_from")
    weights = read_weights(path, "stage.init_from")
    check_weights(weights.items(), path, "stage.init_from", "Train the earlier stage again.")
    rows = load_parts(model, weights, path)
    check_base(model, run, field="stage.init_from")
    return rows


def moved_table(rows: list[Moved]) -> Table:
    """Return the hand-over as a table."""
    table = Table("part", "status", "parameters", title="Hand-over from the earlier stage")
    for row in rows:
        table.add_row(escape(row.part), row.status, f"{row.parameters:,}")
    return table
