"""Files of a folder to single images with what their headers say; what is no MR image is left out with its reason."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import EnhancedMRImageStorage, MRImageStorage, UncompressedTransferSyntaxes

MR_CLASSES = (MRImageStorage, EnhancedMRImageStorage)
# Keys by which images of one position can be ordered in time, the best first.
TIME_KEYS = (
    "trigger_time_ms",
    "temporal_position",
    "content_time_s",
    "acquisition_time_s",
    "instance_number",
)
Vector = NDArray[np.float64]


@dataclass(frozen=True)
class LeftOut:
    """Something that is no part of any series.

    Attributes:
        number: Number of the file among the sorted files of the folder; names of files can carry those of patients.
        reason: Why.
    """

    number: int
    reason: str


@dataclass(frozen=True)
class Image:
    """One image: a file, or a frame of a multi-frame file.

    Attributes:
        path: The file.
        number: Number of the file among the sorted files of the folder.
        frame: Frame in a multi-frame file, None for a file of one image.
        patient: Value that tells patients apart.
        study: Value that tells visits apart.
        series: Value that tells series apart.
        acquisition: Number and time of the acquisition, to tell repeats apart.
        position_mm: (3,) centre of the first pixel in the patient's system (LPS); None when the file does not say.
        row: (3,) unit vector along a row of the image, in which the column index grows.
        column: (3,) unit vector along a column.
        spacing_mm: Distance of rows and of columns; None when the file does not say.
        shape: Rows and columns.
        times: Name of a time key to its value.
        slope: Rescale slope.
        intercept: Rescale intercept.
        image_type: Values of the tag.
        facts: Inversion time, descriptions and what else tells sequences apart.
    """

    path: Path
    number: int
    frame: int | None
    patient: str
    study: str
    series: str
    acquisition: tuple[float, float]
    position_mm: Vector | None
    row: Vector
    column: Vector
    spacing_mm: tuple[float, float] | None
    shape: tuple[int, int]
    times: dict[str, float]
    slope: float
    intercept: float
    image_type: tuple[str, ...]
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def normal(self) -> Vector:
        """(3,) unit vector across the image."""
        return np.cross(self.row, self.column)


def scan(paths: Iterable[Path]) -> Iterator[list[Image] | LeftOut]:
    """Each file as its images or as left out, with its number. Nothing is written or changed."""
    for number, path in enumerate(paths):
        found = read_file(path, number)
        yield LeftOut(number, found) if isinstance(found, str) else found


def files_of(folder: Path) -> list[Path]:
    """All files of a folder tree in a fixed order."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def read_file(path: Path, number: int) -> list[Image] | str:
    """Images of a file, or the reason why there are none."""
    if path.name.startswith("._"):
        return "AppleDouble file of macOS"
    if path.stat().st_size == 0:
        return "empty file"
    try:
        with path.open("rb") as file:
            header = pydicom.dcmread(file, stop_before_pixels=True)
            pixel_bytes = path.stat().st_size - file.tell()
    except InvalidDicomError:
        return "no DICOM file"
    except (OSError, ValueError, KeyError, EOFError, AttributeError) as error:
        return f"header cannot be read ({type(error).__name__})"
    reason = _not_wanted(header, pixel_bytes)
    if reason:
        return reason
    if header.SOPClassUID == EnhancedMRImageStorage:
        return _frames_of(header, path, number)
    return [_image(header, [header], path, number, None)]


def _not_wanted(header: Dataset, pixel_bytes: int) -> str | None:
    kind = header.get("SOPClassUID")
    if (
        kind is None
        or header.file_meta.get("MediaStorageSOPClassUID", "") == "1.2.840.10008.1.3.10"
    ):
        return "DICOMDIR or no image"
    if kind not in MR_CLASSES:
        return f"no MR image ({getattr(kind, 'name', kind)})"
    types = tuple(str(one).upper() for one in header.get("ImageType", ()))
    if str(header.get("BurnedInAnnotation", "")).upper() == "YES":
        return "burnt-in annotation"
    if {"SECONDARY", "SAVE"} & set(types) or "SCREEN SAVE" in " ".join(types):
        return "secondary capture"
    syntax = header.file_meta.get("TransferSyntaxUID")
    if syntax is not None and syntax not in UncompressedTransferSyntaxes:
        decoder = get_decoder(syntax)
        if not decoder.is_available:
            missing = "; ".join(decoder.missing_dependencies)
            return f"no decoder for {syntax.name}: {missing}"
    if syntax in UncompressedTransferSyntaxes and pixel_bytes < _pixel_bytes(header):
        return "truncated file"
    return None


def _pixel_bytes(header: Dataset) -> int:
    bits = int(header.get("BitsAllocated", 16))
    frames = int(header.get("NumberOfFrames", 1) or 1)
    return int(header.get("Rows", 0)) * int(header.get("Columns", 0)) * bits // 8 * frames


def _frames_of(header: Dataset, path: Path, number: int) -> list[Image] | str:
    shared = header.get("SharedFunctionalGroupsSequence", [Dataset()])[0]
    each = header.get("PerFrameFunctionalGroupsSequence")
    if not each:
        return "multi-frame file without functional groups"
    return [
        _image(header, [*_macros(one), *_macros(shared), header], path, number, index)
        for index, one in enumerate(each)
    ]


def _macros(group: Dataset) -> list[Dataset]:
    return [element.value[0] for element in group if element.VR == "SQ" and len(element.value)]


def _first(where: Sequence[Dataset], *names: str) -> Any:
    for name in names:
        for one in where:
            if one.get(name) not in (None, ""):
                return one.get(name)
    return None


def _number(where: Sequence[Dataset], *names: str) -> float | None:
    value = _first(where, *names)
    return None if value is None else float(value)


def _clock(value: Any) -> float | None:
    """Seconds since midnight of a DICOM time or of the time in a DICOM date and time."""
    text = str(value or "").split("+")[0]
    text = text[8:] if len(text.split(".")[0]) >= 14 else text
    if len(text) < 4 or not text[:4].isdigit():
        return None
    return int(text[:2]) * 3600 + int(text[2:4]) * 60 + float(text[4:] or 0)


def _image(
    header: Dataset, where: Sequence[Dataset], path: Path, number: int, frame: int | None
) -> Image:
    """Facts of one image; `where` holds the data sets that may state them, the closest first."""
    orientation = [
        float(one) for one in _first(where, "ImageOrientationPatient") or (1, 0, 0, 0, 1, 0)
    ]
    position = _first(where, "ImagePositionPatient")
    spacing = _first(where, "PixelSpacing")
    times = {
        "trigger_time_ms": _number(where, "TriggerTime", "NominalCardiacTriggerDelayTime"),
        "temporal_position": _number(where, "TemporalPositionIndex", "TemporalPositionIdentifier"),
        "content_time_s": _clock(_first(where, "ContentTime")),
        "acquisition_time_s": _clock(_first(where, "FrameReferenceDateTime", "AcquisitionTime")),
        "instance_number": float(frame) if frame is not None else _number(where, "InstanceNumber"),
    }
    folder = str(path.parent)
    series = header.get("SeriesInstanceUID") or "/".join(
        str(one)
        for one in (header.get("SeriesNumber", ""), header.get("SeriesDescription", ""), folder)
    )
    return Image(
        path=path,
        number=number,
        frame=frame,
        patient=str(header.get("PatientID") or header.get("StudyInstanceUID") or folder),
        study=str(header.get("StudyInstanceUID") or header.get("PatientID") or folder),
        series=f"{series}/{_first(where, 'StackID') or ''}",
        acquisition=(
            _number(where, "AcquisitionNumber") or 0.0,
            _clock(_first(where, "AcquisitionTime")) or 0.0,
        ),
        position_mm=None if position is None else np.array([float(one) for one in position]),
        row=np.array(orientation[:3]),
        column=np.array(orientation[3:]),
        spacing_mm=None if spacing is None else (float(spacing[0]), float(spacing[1])),
        shape=(int(header.Rows), int(header.Columns)),
        times={name: value for name, value in times.items() if value is not None},
        slope=1.0 if (slope := _number(where, "RescaleSlope")) is None else slope,
        intercept=_number(where, "RescaleIntercept") or 0.0,
        image_type=tuple(str(one).upper() for one in _first(where, "FrameType", "ImageType") or ()),
        facts={
            "description": f"{header.get('SeriesDescription', '')} {header.get('ProtocolName', '')}".lower(),
            "inversion_time_ms": _number(where, "InversionTime", "InversionTimes"),
            "thickness_mm": _number(where, "SliceThickness"),
            "stated_gap_mm": _number(where, "SpacingBetweenSlices"),
            "slice_location_mm": _number(where, "SliceLocation"),
        },
    )
