"""The one error that a user's mistake ends in: it names what broke, where, and what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Made = TypeVar("Made")


class CmrvlmError(ValueError):
    """Bad input, configuration or file.

    Entry points print it in one line and exit with status 1; everything else that is raised is a bug.

    Args:
        problem: What is wrong, as a sentence without a full stop.
        file: The file or folder it was found in.
        field: The field, key or argument it was found at.
        remedy: What the user can do about it.
    """

    def __init__(
        self,
        problem: str,
        *,
        file: str | Path | None = None,
        field: str | None = None,
        remedy: str = "",
    ) -> None:
        self.problem, self.file, self.field, self.remedy = problem, file, field, remedy
        where = [str(file)] if file is not None else []
        if field is not None:
            where.append(f"field '{field}'")
        text = f"{', '.join(where)}: {problem}" if where else problem
        super().__init__(f"{text}. {remedy}".strip() if remedy else text)

    def without_folders(self) -> str:
        """The message with the file's name in place of its path: folders of an archive can carry names of patients."""
        return (
            str(self)
            if self.file is None
            else str(self).replace(str(self.file), Path(self.file).name)
        )


def raises_on_stop_iteration(make: Callable[Arguments, Made]) -> Callable[Arguments, Made]:
    """Let a stray StopIteration of a function be an error: a loop that calls it would take it for the end."""

    @wraps(make)
    def guarded(*arguments: Arguments.args, **named: Arguments.kwargs) -> Made:
        try:
            return make(*arguments, **named)
        except StopIteration as error:
            raise RuntimeError(f"{make.__qualname__} ended early") from error

    return guarded


@contextmanager
def naming_file(file: Path) -> Iterator[None]:
    """Errors of what a file says of something else name the file.

    Raises:
        CmrvlmError: One was raised inside; the file is that which it names, else this one.
    """
    try:
        yield
    except CmrvlmError as error:
        if error.file is not None:
            raise
        raise CmrvlmError(
            error.problem, file=file, field=error.field, remedy=error.remedy
        ) from error
