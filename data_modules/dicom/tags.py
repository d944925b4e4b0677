"""Read the tags of an image, each as the kind of value that it is to hold."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset

from cmrvlm.errors import CmrvlmError

# Vendors write the largest number of a type where they mean none.
_LARGEST = 1e12


@dataclass(frozen=True)
class Tags:
    """Tags of one image.

    Attributes:
        datasets: Data sets that may state a tag, the closest to the image first.
    """

    datasets: tuple[Dataset, ...]

    def value(self, *names: str) -> Any:
        """Return the first value that is stated of the first name that has one, else None.

        Raises:
            CmrvlmError: A value cannot be read as what its tag is to hold.
        """
        for name in names:
            for dataset in self.datasets:
                try:
                    value = dataset.get(name)
                # pydicom reads values when they are asked for, and raises these on bad ones.
                except (ValueError, TypeError, OverflowError, LookupError) as error:
                    raise _no_number(name) from error
                if value is not None and not _is_blank(value):
                    return value
        return None

    def number(self, *names: str) -> float | None:
        """Return `value` as a finite number, None where no tag states it.

        Raises:
            CmrvlmError: It is no finite number.
        """
        value = self.value(*names)
        if value is None:
            return None
        return _finite(value, names[0])

    def numbers(self, name: str, count: int = 0) -> list[float] | None:
        """Return the several numbers of a tag, None where it is not stated.

        Args:
            name: Name of the tag.
            count: How many there must be; 0 takes any number.

        Raises:
            CmrvlmError: One is no finite number, or there are more or fewer.
        """
        values = self.value(name)
        if values is None:
            return None
        if isinstance(values, (str, int, float)):
            values = [values]
        numbers = [_finite(value, name) for value in values]
        if count and len(numbers) != count:
            raise CmrvlmError(f"{len(numbers)} numbers for {count}", field=name)
        return numbers

    def private_number(self, group: int, creator: str, element: int) -> float | None:
        """Return a vendor's tag as a finite number, None where it is not stated or no number."""
        for dataset in self.datasets:
            try:
                return _finite(dataset.get_private_item(group, element, creator).value, creator)
            # What a vendor keeps there is known of some versions only.
            except (KeyError, ValueError, CmrvlmError):
                continue
        return None

    def dimension_index(self, *names: str) -> float | None:
        """Return the index of a frame of a multi-frame file along the dimension of a tag.

        Args:
            *names: Names of tags; the first that is a dimension of the file counts.
        """
        dimensions = self.value("DimensionIndexSequence") or ()
        indices = self.numbers("DimensionIndexValues") or []
        pointers = [dimension.get("DimensionIndexPointer") for dimension in dimensions]
        for name in names:
            tag = tag_for_keyword(name)
            if tag in pointers and pointers.index(tag) < len(indices):
                return indices[pointers.index(tag)]
        return None

    def seconds(self, *names: str) -> float | None:
        """Return `value`, a time of day, as seconds since midnight."""
        return _seconds_since_midnight(self.value(*names))


def words_of(value: Any) -> tuple[str, ...]:
    """Return the values of a tag such as ImageType in upper case; a single one is no list."""
    values = [value] if isinstance(value, str) else value or ()
    return tuple(str(word).strip().upper() for word in values)


def _is_blank(value: Any) -> bool:
    """Return whether a value of a tag holds nothing."""
    return isinstance(value, (str, bytes, list, tuple)) and len(value) == 0


def _finite(value: Any, name: str) -> float:
    """Return a value of a tag as a finite number.

    Raises:
        CmrvlmError: It is none. The value is not quoted: it may tell who the patient is.
    """
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise _no_number(name) from None
    if not math.isfinite(number) or abs(number) > _LARGEST:
        raise _no_number(name)
    return number


def _no_number(name: str) -> CmrvlmError:
    return CmrvlmError("no finite number", field=name, remedy="Write the file again.")


def _seconds_since_midnight(value: Any) -> float | None:
    """Return the seconds since midnight of a DICOM time, or of the time in a date and time."""
    text = str(value or "").split("+")[0]
    digits_before_fraction = len(text.split(".")[0])
    if digits_before_fraction >= len("YYYYMMDDHHMMSS"):
        text = text[len("YYYYMMDD") :]
    if len(text) < len("HHMM") or not text[:4].isdigit():
        return None
    hours = int(text[:2])
    minutes = int(text[2:4])
    try:
        return hours * 3600 + minutes * 60 + float(text[4:] or 0)
    except ValueError:
        return None
