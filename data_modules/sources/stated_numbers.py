"""Numbers that a public data set states of its patients, where nobody can correct a wrong one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from cmrvlm.errors import CmrvlmError


@dataclass
class StatedNumbers:
    """Numbers of one study; one that cannot be right is unknown, and noted.

    Attributes:
        values: Number by name, such as `height_cm`; unknown ones are not there.
        notes: Why a number that is stated counts as unknown, a sentence each.
    """

    values: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, name: str, read: Callable[[], float | None]) -> None:
        """Read a number.

        Args:
            name: Name of the number.
            read: Function that returns it, None where it is unknown, or raises a `CmrvlmError`
                where it cannot be right.
        """
        try:
            value = read()
        except CmrvlmError as error:
            self.notes.append(f"{name} counts as unknown: {error.problem}")
            return
        if value is not None:
            self.values[name] = value

    def check_together(
        self, names: Sequence[str], check: Callable[[Mapping[str, float]], None]
    ) -> None:
        """Hold numbers against one another: which of them is wrong is not known where they clash.

        Args:
            names: Names of the numbers; nothing is checked where one of them is unknown.
            check: Function that raises a `CmrvlmError` where they cannot be right together.
        """
        if not set(names) <= set(self.values):
            return
        try:
            check(self.values)
        except CmrvlmError as error:
            for name in names:
                del self.values[name]
            self.notes.append(f"{' and '.join(names)} count as unknown: {error.problem}")
