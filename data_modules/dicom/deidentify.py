"""What may leave an archive: new ids by keyed hash, shifted dates, and numbers from an allow-list of tags.

No text of a file is ever passed on: sex and maker become one of a few words, everything else is a number.
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

_KEY_BYTES = 32
_MOST_DAYS = 3650
_OLDEST_YEARS = 89  # HIPAA, 45 CFR 164.514(b)(2): ages above are not told apart
_MAKERS = ("siemens", "philips", "ge", "canon", "toshiba", "hitachi", "fujifilm", "united imaging")


def read_key(path: Path) -> bytes:
    """The secret that new ids depend on; made on first use, readable by its owner alone.

    Raises:
        CmrvlmError: The file is no such key.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
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
    """New names for patients and studies: the same ones for the same key, and no way back without it.

    Attributes:
        key: The secret.
    """

    key: bytes

    def _digest(self, kind: str, value: str) -> bytes:
        return hmac.new(self.key, f"{kind}/{value}".encode(), hashlib.sha256).digest()

    def patient(self, value: str) -> str:
        """New id of a patient."""
        return "p" + self._digest("patient", value).hex()[:12]

    def study(self, value: str) -> str:
        """New id of a study."""
        return "s" + self._digest("study", value).hex()[:12]

    def shifted(self, day: str, patient: str) -> str | None:
        """A DICOM date moved into the past by a number of days that is constant for the patient, as YYYY-MM-DD."""
        if not re.fullmatch(r"\d{8}", day):
            return None
        days = 1 + int.from_bytes(self._digest("days", patient)[:4]) % _MOST_DAYS
        try:
            original = date(int(day[:4]), int(day[4:6]), int(day[6:]))
        except ValueError:
            return None
        return (original - timedelta(days=days)).isoformat()


def demographics(header: Dataset) -> dict[str, Any]:
    """Sex, age in years, height in cm and weight in kg, where the header states them."""
    found: dict[str, Any] = {}
    sex = str(header.get("PatientSex", "")).lower()
    if sex in ("m", "f"):
        found["sex"] = sex
    age = re.fullmatch(r"(\d{3})([YMWD])", str(header.get("PatientAge", "")))
    if age:
        years = int(age[1]) / {"Y": 1, "M": 12, "W": 52, "D": 365}[age[2]]
        found["age_years"] = float(min(round(years), _OLDEST_YEARS + 1))
    for name, tag, factor in (
        ("height_cm", "PatientSize", 100.0),
        ("weight_kg", "PatientWeight", 1.0),
    ):
        value = _positive(header.get(tag))
        if value is not None:
            found[name] = round(value * factor, 1)
    return found


def scanner(header: Dataset) -> Mapping[str, Any]:
    """Maker, as one of a few words, and field strength in tesla."""
    said = str(header.get("Manufacturer", "")).lower()
    maker = next((one for one in _MAKERS if re.search(rf"\b{one}\b", said)), None)
    field_t = _positive(header.get("MagneticFieldStrength"))
    return {"maker": maker, "field_t": None if field_t is None else round(field_t, 2)}


def _positive(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if 0 < number < 1e4 else None
