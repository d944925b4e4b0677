"""A single MR image with what its header says of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from cmrvlm.errors import CmrvlmError
from data_modules.dicom.tags import Tags, words_of

# Keys by which images of one position can be ordered in time, the best first.
TIME_KEYS = (
    "trigger_time_ms",
    "temporal_position",
    "content_time_s",
    "acquisition_time_s",
    "instance_number",
)
# Keys whose values are as far apart as the frames are in the heart beat.
UNIFORM_KEYS = ("trigger_time_ms", "temporal_position", "instance_number")
# Dimensions of multi-frame files that count the phases of the heart.
_TIME_DIMENSIONS = (
    "TemporalPositionIndex",
    "NominalCardiacTriggerDelayTime",
    "ActualCardiacTriggerDelayTime",
    "NominalPercentageOfCardiacPhase",
    "TemporalPositionTimeOffset",
    "TriggerTime",
)
# Tags of vendors that count them: Siemens' time after start, Philips' phase number.
_PRIVATE_TIMES = (
    (0x0019, "SIEMENS MR HEADER", 0x16),
    (0x2001, "Philips Imaging DD 001", 0x08),
)
# Positions further from the centre of a scanner than this are no positions.
_FARTHEST_MM = 10_000.0
# Length of a direction, and cosine of two, by which a rounded orientation may be off.
_ROUGH_DIRECTION = 0.05
_MOST_PIXELS = 8192
Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Facts:
    """What series are recognised and slices placed by.

    Attributes:
        description: Names of series and protocol as they are written.
        series_name: Name of the series alone.
        series_number: Number of the series, None where it is not stated.
        inversion_time_ms: Inversion time, None without one or with several.
        several_inversion_times: The image comes from several inversion times.
        echo_time_ms: Echo time.
        interval_ms: Stated length of the heart beat.
        tagged: The magnetization was tagged.
        velocity_encoded: Grey values are velocities, or come from velocity encoding.
        thickness_mm: Thickness of the slice.
        stated_gap_mm: Stated distance of slices.
        slice_location_mm: Stated place of the slice.
    """

    description: str = ""
    series_name: str = ""
    series_number: float | None = None
    inversion_time_ms: float | None = None
    several_inversion_times: bool = False
    echo_time_ms: float | None = None
    interval_ms: float | None = None
    tagged: bool = False
    velocity_encoded: bool = False
    thickness_mm: float | None = None
    stated_gap_mm: float | None = None
    slice_location_mm: float | None = None


@dataclass(frozen=True)
class Image:
    """A single image: a file, or a frame of a multi-frame file.

    Attributes:
        path: File of the image.
        file_number: Number of the file among the sorted files of the folder.
        frame: Frame index in a multi-frame file, None for a file of one image.
        instance: Unique identifier of the image, empty where the file has none.
        patient: Stated identifier of the patient, empty where the file has none.
        person: Stated birth date, sex and name, by which people of one identifier are told apart.
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
        facts: What series are recognised and slices placed by.
        has_study_identifier: The file states the identifier of its study.
    """

    path: Path
    file_number: int
    frame: int | None
    instance: str
    patient: str
    person: tuple[str, str, str]
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
    facts: Facts
    has_study_identifier: bool = True

    @property
    def normal(self) -> Vector:
        """(3,) unit vector across the image."""
        return np.cross(self.row_direction, self.column_direction)


def image_of(header: Dataset, tags: Tags, path: Path, file_number: int, frame: int | None) -> Image:
    """Build an image from what its file says of it.

    Args:
        header: Header of the file.
        tags: Tags of the image, those of the header among them.
        path: The file.
        file_number: Number of the file among the sorted files of the folder.
        frame: Frame index in a multi-frame file, None for a file of one image.

    Raises:
        CmrvlmError: A tag that is needed is missing or holds nonsense.
    """
    folder = str(path.parent)
    patient_id = _text(header, "PatientID")
    study_uid = _text(header, "StudyInstanceUID")
    row_direction, column_direction = _directions(tags)
    slope = tags.number("RescaleSlope")
    return Image(
        path=path,
        file_number=file_number,
        frame=frame,
        instance=_text(header, "SOPInstanceUID"),
        patient=patient_id,
        person=(
            _text(header, "PatientBirthDate"),
            _text(header, "PatientSex"),
            _text(header, "PatientName"),
        ),
        study=study_uid or _visit(header, patient_id or folder),
        series=_series_of(header, tags, folder),
        acquisition=(
            tags.number("AcquisitionNumber") or 0.0,
            tags.seconds("AcquisitionTime") or 0.0,
        ),
        position_mm=_position_mm(tags),
        row_direction=row_direction,
        column_direction=column_direction,
        spacing_mm=_spacing_mm(tags),
        shape=_shape(header),
        times=_times(tags, frame),
        slope=1.0 if slope is None else slope,
        intercept=tags.number("RescaleIntercept") or 0.0,
        image_type=words_of(tags.value("FrameType", "ImageType")),
        facts=_facts(header, tags),
        has_study_identifier=bool(study_uid),
    )


def _visit(header: Dataset, patient: str) -> str:
    """Return a value for the visit of a file that states no study: its patient and its day."""
    day = _text(header, "StudyDate")
    if day:
        return f"{patient}/{day}"
    return patient


def _text(header: Dataset, name: str) -> str:
    """Return a tag as text without blanks around it, empty where it is not stated."""
    return str(header.get(name) or "").strip(" \0")


def _shape(header: Dataset) -> tuple[int, int]:
    """Return the numbers of rows and columns.

    Raises:
        CmrvlmError: They are not stated, or no scanner makes such images.
    """
    sizes = []
    for name in ("Rows", "Columns"):
        size = header.get(name)
        if size is None or not 0 < int(size) <= _MOST_PIXELS:
            raise CmrvlmError("missing or absurd", field=name)
        sizes.append(int(size))
    return sizes[0], sizes[1]


def _position_mm(tags: Tags) -> Vector | None:
    """Return the centre (3,) of the first pixel in LPS, None where it is not stated.

    Raises:
        CmrvlmError: It is no position in a scanner.
    """
    numbers = tags.numbers("ImagePositionPatient", count=3)
    if numbers is None:
        return None
    if max(abs(number) for number in numbers) > _FARTHEST_MM:
        raise CmrvlmError("no position in a scanner", field="ImagePositionPatient")
    return np.array(numbers)


def _spacing_mm(tags: Tags) -> tuple[float, float] | None:
    """Return the distance of rows and of columns, None where it is not stated.

    Raises:
        CmrvlmError: One is not positive.
    """
    numbers = tags.numbers("PixelSpacing", count=2)
    if numbers is None:
        return None
    if min(numbers) <= 0:
        raise CmrvlmError("not positive", field="PixelSpacing")
    return numbers[0], numbers[1]


def _directions(tags: Tags) -> tuple[Vector, Vector]:
    """Return the unit vectors (3,) along a row and along a column, in LPS.

    Raises:
        CmrvlmError: They are no two directions at a right angle.
    """
    numbers = tags.numbers("ImageOrientationPatient", count=6)
    if numbers is None:
        numbers = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    row = np.array(numbers[:3])
    column = np.array(numbers[3:])
    lengths = float(np.linalg.norm(row)), float(np.linalg.norm(column))
    off = max(abs(lengths[0] - 1), abs(lengths[1] - 1), abs(float(row @ column)))
    if off > _ROUGH_DIRECTION:
        raise CmrvlmError("no two directions", field="ImageOrientationPatient")
    return row / lengths[0], column / lengths[1]


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
        "temporal_position": _temporal_position(tags),
        "content_time_s": tags.seconds("ContentTime"),
        "acquisition_time_s": tags.seconds("FrameReferenceDateTime", "AcquisitionTime"),
        "instance_number": instance_number,
    }
    return {name: value for name, value in times.items() if value is not None}


def _temporal_position(tags: Tags) -> float | None:
    """Return where an image stands among those of its slice, None where nothing states it."""
    stated = tags.number("TemporalPositionIndex", "TemporalPositionIdentifier")
    if stated is None:
        stated = tags.dimension_index(*_TIME_DIMENSIONS)
    if stated is not None:
        return stated
    for group, creator, element in _PRIVATE_TIMES:
        stated = tags.private_number(group, creator, element)
        if stated is not None:
            return stated
    return None


def _facts(header: Dataset, tags: Tags) -> Facts:
    """Return what series are recognised and slices placed by."""
    names = ("SeriesDescription", "ProtocolName", "SequenceName", "PulseSequenceName")
    description = " ".join(str(tags.value(name) or "") for name in names[:2]).strip()
    pulse = " ".join(str(tags.value(name) or "") for name in names[2:]).lower()
    inversions_ms = tags.numbers("InversionTimes") or []
    inversion_ms = tags.number("InversionTime")
    if inversion_ms is None and len(inversions_ms) == 1:
        inversion_ms = inversions_ms[0]
    tagging = str(tags.value("Tagging") or "NONE").upper()
    return Facts(
        description=description,
        series_name=str(tags.value("SeriesDescription") or ""),
        series_number=tags.number("SeriesNumber"),
        inversion_time_ms=inversion_ms,
        several_inversion_times=len(set(inversions_ms)) > 1,
        echo_time_ms=tags.number("EchoTime", "EffectiveEchoTime"),
        interval_ms=tags.number("NominalInterval", "RRIntervalTimeNominal"),
        tagged=tagging != "NONE" or "tag" in pulse,
        velocity_encoded=bool(tags.number("VelocityEncodingMaximumValue")),
        thickness_mm=tags.number("SliceThickness"),
        stated_gap_mm=tags.number("SpacingBetweenSlices"),
        slice_location_mm=tags.number("SliceLocation"),
    )
