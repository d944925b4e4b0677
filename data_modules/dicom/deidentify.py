"""De-identify studies: new ids by keyed hash, shifted dates, and an allow-list of tags.

No text of a file is ever passed on: sex and maker become one of a few words, everything else is a
number.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from cmrvlm.errors import CmrvlmError
from cmrvlm.study.measurements import DEMOGRAPHICS, plausible_range

_KEY_BYTES = 32
_MOST_DAYS = 3650
# HIPAA, 45 CFR 164.514(b)(2): ages above are not told apart.
_OLDEST_YEARS = 89
# How many of each unit of PatientAge make a year.
_UNITS_PER_YEAR = {"Y": 1, "M": 12, "W": 52, "D": 365}
_MAKERS = ("siemens", "philips", "ge", "canon", "toshiba", "hitachi", "fujifilm", "united imaging")


def read_key(path: Path) -> bytes:
    """Read the secret that new ids depend on, and make it where there is none.

    Args:
        path: File of the key; a new one is readable by its owner alone.

    Raises:
        CmrvlmError: The file is no such key.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        # O_EXCL, because a key that another process makes at the same time must not be lost.
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_hex(_KEY_BYTES))
    text = path.read_text().strip()
    if not re.fullmatch(rf"[0-9a-f]{{{2 * _KEY_BYTES}}}", text):
        raise CmrvlmError(
            "this is no key",
            file=path,
            field="key_file",
            remedy="Give another path; one is made there.",
        )
    return bytes.fromhex(text)


@dataclass(frozen=True)
class Pseudonyms:
    """New ids and dates of patients and studies.

    They are the same for the same key, and nobody finds the way back without it.

    Attributes:
        key: The secret.
    """

    key: bytes

    def patient(self, patient: str) -> str:
        """Return the new id of a patient."""
        return "p" + self._digest("patient", patient).hex()[:12]

    def study(self, study: str) -> str:
        """Return the new id of a study."""
        return "s" + self._digest("study", study).hex()[:12]

    def fingerprint(self, *content: object) -> str:
        """Return a keyed hash of anything, such as names of files, that tells nothing of it."""
        return self._digest("fingerprint", repr(content)).hex()

    def shifted_date(self, day: str, patient: str) -> str | None:
        """Move a date into the past by a number of days that is the same for all of a patient.

        Args:
            day: DICOM date, YYYYMMDD.
            patient: Value that the header states for the patient.

        Returns:
            Date as YYYY-MM-DD, None for what is no date.
        """
        if not re.fullmatch(r"\d{8}", day):
            return None
        year = int(day[:4])
        month = int(day[4:6])
        try:
            original = date(year, month, int(day[6:]))
        except ValueError:
            return None
        draw = int.from_bytes(self._digest("days", patient)[:4])
        days = 1 + draw % _MOST_DAYS
        return (original - timedelta(days=days)).isoformat()

    def _digest(self, purpose: str, value: str) -> bytes:
        """Return the keyed hash of a value, another one for each purpose."""
        return hmac.new(self.key, f"{purpose}/{value}".encode(), hashlib.sha256).digest()


def demographics(header: Dataset) -> dict[str, Any]:
    """Return sex, age in years, height in cm and weight in kg, as far as a header states them."""
    result: dict[str, Any] = {}
    sex = str(header.get("PatientSex", "")).strip().lower()
    if sex in ("m", "f"):
        result["sex"] = sex
    # Three digits are prescribed, and two are common.
    age = re.fullmatch(r"(\d{1,3}) *([YMWD])", str(header.get("PatientAge", "")).strip().upper())
    if age:
        years = int(age[1]) / _UNITS_PER_YEAR[age[2]]
        result["age_years"] = float(min(round(years), _OLDEST_YEARS + 1))
    height_m = _positive_number(header.get("PatientSize"))
    if height_m is not None:
        result["height_cm"] = round(height_m * 100.0, 1)
    weight_kg = _positive_number(header.get("PatientWeight"))
    if weight_kg is not None:
        result["weight_kg"] = round(weight_kg, 1)
    return result


def implausible_demographics(values: Mapping[str, Any]) -> list[str]:
    """Return the names of the numbers that no patient has, such as a height in another unit."""
    names = []
    for name in DEMOGRAPHICS:
        low, high, _ = plausible_range(name)
        if name in values and not low <= values[name] <= high:
            names.append(name)
    return names


def scanner(header: Dataset) -> Mapping[str, Any]:
    """Return the maker, as one of a few words, and the field strength in tesla."""
    field_t = _positive_number(header.get("MagneticFieldStrength"))
    if field_t is not None:
        field_t = round(field_t, 2)
    return {"maker": _maker(header), "field_t": field_t}


def _maker(header: Dataset) -> str | None:
    """Return the first of the known makers that a header names, or None."""
    stated = str(header.get("Manufacturer", "")).lower()
    for maker in _MAKERS:
        if re.search(rf"\b{maker}\b", stated):
            return maker
    return None


def _positive_number(value: Any) -> float | None:
    """Return a value as a positive number, or None for what is no such number."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    if 0 < number < 1e4:
        return number
    return None
