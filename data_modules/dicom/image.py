"""A single MR image with what its header says of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

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
class Image:
    """A single image: a file, or a frame of a multi-frame file.

    Attributes:
        path: File of the image.
        file_number: Number of the file among the sorted files of the folder.
        frame: Frame index in a multi-frame file, None for a file of one image.
        patient: Value that is the same for all images of a patient.
        study: Value that is the same for all images of a visit.
        series: Value that is the same for all images of a series, and of a stack in it.
        acquisition: Number of the acquisition and its time in seconds, to tell repeats apart.
        position_mm: (3,) centre of the first pixel in the patient's system (LPS), None when the
            file does not state it.
        row_direction: (3,) unit vector along a row of the image, in which the column index grows.
        column_direction: (3,) unit vector along a column, in which the row index grows.
        spacing_mm: Distance of rows and of columns, None when the file does not state it.
        shape: Numbers of rows and of columns (H, W).
        times: Name of a time key to its value.
        slope: Rescale slope.
        intercept: Rescale intercept.
        image_type: Values of the tag ImageType or FrameType in upper case.
        facts: Description, inversion time and distances of slices, by which sequences are
            recognised and slices placed.
    """

    path: Path
    file_number: int
    frame: int | None
    patient: str
    study: str
    series: str
    acquisition: tuple[float, float]
    position_mm: Vector | None
    row_direction: Vector
    column_direction: Vector
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
        return np.cross(self.row_direction, self.column_direction)


@dataclass(frozen=True)
class Tags:
    """Tags of one image.

    Attributes:
        datasets: Data sets that may state a tag, the closest to the image first.
    """

    datasets: tuple[Dataset, ...]

    def value(self, *names: str) -> Any:
        """Return the first value that is stated of the first name that has one, else None."""
        for name in names:
            for dataset in self.datasets:
                value = dataset.get(name)
                if value not in (None, ""):
                    return value
        return None

    def number(self, *names: str) -> float | None:
        """Return `value` as a number, None where no tag states it."""
        value = self.value(*names)
        if value is None:
            return None
        return float(value)

    def numbers(self, name: str) -> list[float] | None:
        """Return the several numbers of a tag, None where it is not stated."""
        values = self.value(name)
        if values is None:
            return None
        return [float(value) for value in values]

    def seconds(self, *names: str) -> float | None:
        """Return `value`, a time of day, as seconds since midnight."""
        return _seconds_since_midnight(self.value(*names))


def image_of(header: Dataset, tags: Tags, path: Path, file_number: int, frame: int | None) -> Image:
    """Build an image from what its file says of it.

    Args:
        header: Header of the file.
        tags: Tags of the image, those of the header among them.
        path: The file.
        file_number: Number of the file among the sorted files of the folder.
        frame: Frame index in a multi-frame file, None for a file of one image.
    """
    folder = str(path.parent)
    patient_id = header.get("PatientID")
    study_uid = header.get("StudyInstanceUID")
    orientation = tags.numbers("ImageOrientationPatient") or [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    position_mm = tags.numbers("ImagePositionPatient")
    spacing_mm = tags.numbers("PixelSpacing")
    slope = tags.number("RescaleSlope")
    image_type = tags.value("FrameType", "ImageType") or ()
    return Image(
        path=path,
        file_number=file_number,
        frame=frame,
        patient=str(patient_id or study_uid or folder),
        study=str(study_uid or patient_id or folder),
        series=_series_of(header, tags, folder),
        acquisition=(
            tags.number("AcquisitionNumber") or 0.0,
            tags.seconds("AcquisitionTime") or 0.0,
        ),
        position_mm=None if position_mm is None else np.array(position_mm),
        row_direction=np.array(orientation[:3]),
        column_direction=np.array(orientation[3:]),
        spacing_mm=None if spacing_mm is None else (spacing_mm[0], spacing_mm[1]),
        shape=(int(header.Rows), int(header.Columns)),
        times=_times(tags, frame),
        slope=1.0 if slope is None else slope,
        intercept=tags.number("RescaleIntercept") or 0.0,
        image_type=tuple(str(value).upper() for value in image_type),
        facts=_facts(header, tags),
    )


def _series_of(header: Dataset, tags: Tags, folder: str) -> str:
    """Return a value that is the same for all images of a series, and of a stack in it."""
    series = header.get("SeriesInstanceUID")
    if not series:
        number = header.get("SeriesNumber", "")
        description = header.get("SeriesDescription", "")
        series = f"{number}/{description}/{folder}"
    stack = tags.value("StackID") or ""
    return f"{series}/{stack}"


def _times(tags: Tags, frame: int | None) -> dict[str, float]:
    """Return the time keys that an image has, by their names in `TIME_KEYS`."""
    # All frames of a file share its instance number.
    instance_number = tags.number("InstanceNumber") if frame is None else float(frame)
    times = {
        "trigger_time_ms": tags.number("TriggerTime", "NominalCardiacTriggerDelayTime"),
        "temporal_position": tags.number("TemporalPositionIndex", "TemporalPositionIdentifier"),
        "content_time_s": tags.seconds("ContentTime"),
        "acquisition_time_s": tags.seconds("FrameReferenceDateTime", "AcquisitionTime"),
        "instance_number": instance_number,
    }
    return {name: value for name, value in times.items() if value is not None}


def _facts(header: Dataset, tags: Tags) -> dict[str, Any]:
    """Return what sequences are recognised and slices placed by."""
    series = header.get("SeriesDescription", "")
    protocol = header.get("ProtocolName", "")
    return {
        "description": f"{series} {protocol}".lower(),
        "inversion_time_ms": tags.number("InversionTime", "InversionTimes"),
        "thickness_mm": tags.number("SliceThickness"),
        "stated_gap_mm": tags.number("SpacingBetweenSlices"),
        "slice_location_mm": tags.number("SliceLocation"),
    }


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
    return hours * 3600 + minutes * 60 + float(text[4:] or 0)
