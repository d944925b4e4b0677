"""The error for mistakes of a user: it names the problem, the file, the field and the remedy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class CmrvlmError(ValueError):
    """An error in input, configuration or a file that the user can correct.

    Commands print it in one line and exit with status 1. Any other exception is a bug.

    Args:
        problem: What is wrong, as a sentence without a full stop.
        file: File or folder that holds the error.
        field: Field, key or argument that holds the error.
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
        self.problem = problem
        self.file = file
        self.field = field
        self.remedy = remedy

        location = []
        if file is not None:
            location.append(str(file))
        if field is not None:
            location.append(f"field '{field}'")

        message = problem
        if location:
            message = f"{', '.join(location)}: {problem}"
        if remedy:
            message = f"{message}. {remedy}".strip()
        super().__init__(message)

    def without_folders(self) -> str:
        """Return the message with the file's name in place of its path."""
        if self.file is None:
            return str(self)
        # Folders of an archive can carry names of patients.
        return str(self).replace(str(self.file), Path(self.file).name)


def raises_on_stop_iteration(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Decorate a function so that a StopIteration inside it becomes a RuntimeError.

    A loop over an iterator that calls the function would take the StopIteration for its own end.
    """

    @wraps(function)
    def guarded(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        try:
            return function(*args, **kwargs)
        except StopIteration as error:
            raise RuntimeError(f"{function.__qualname__} ended early") from error

    return guarded


@contextmanager
def naming_file(file: Path) -> Iterator[None]:
    """Re-raise each `CmrvlmError` that names no file with the name of this one.

    Args:
        file: File whose content is used inside the `with` block.

    Raises:
        CmrvlmError: It was raised inside the block. A file that it already names is kept.
    """
    try:
        yield
    except CmrvlmError as error:
        if error.file is not None:
            raise
        raise CmrvlmError(
            error.problem, file=file, field=error.field, remedy=error.remedy
        ) from error


def missing_run(path: Path | str, field: str = "run") -> CmrvlmError:
    """Return the error of a run that is not there.

    Args:
        path: Where it should be.
        field: Setting that named it.
    """
    return CmrvlmError(
        "there is no run here",
        file=path,
        field=field,
        remedy="Give the folder that training printed.",
    )
