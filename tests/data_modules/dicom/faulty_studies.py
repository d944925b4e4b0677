"""Write studies with one fault each, and state what has to become of them.

A sound study has a short-axis cine of 4 slices and 8 frames, a four-chamber cine, and late
enhancement of 4 slices, oblique as a heart lies.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pydicom

from tests.data_modules.dicom.archive import (
    GAP_MM,
    ROW,
    TO_APEX,
    Archive,
    base_dataset,
    clock,
    set_pixels,
)

SLICES, FRAMES = 4, 8
FOUR_CHAMBER_NORMAL = np.array([0.05, 0.82, -0.57])
ALL = {"sax": (SLICES, FRAMES), "lax_4ch": (1, FRAMES), "lge": (SLICES, 1)}


@dataclass(frozen=True)
class Fault:
    """A fault and what has to become of its study.

    Attributes:
        kind: Number of the kind in the list of faults.
        write: Function from a folder that writes the study.
        series: Sequence to the number of slices and of frames that have to come in.
        reason: Words that the decisions, doubts or reasons must hold, empty for none.
        ambiguous: Sequences that have to be called ambiguous.
    """

    kind: str
    write: Callable[[Path], object]
    series: dict[str, tuple[int, int]] = field(default_factory=lambda: dict(ALL))
    reason: str = ""
    ambiguous: tuple[str, ...] = ()


def plane(normal):
    """Return an image orientation whose rows hold the left-right direction as well as they can."""
    normal = normal / np.linalg.norm(normal)
    row = np.array([1.0, 0, 0]) - normal[0] * normal
    row /= np.linalg.norm(row)
    return [float(value) for value in (*row, *np.cross(normal, row))]


FOUR_CHAMBER = plane(FOUR_CHAMBER_NORMAL)


def four_chamber(archive, description="cine 4ch", series="1.2.3.4", **settings):
    """Write a four-chamber cine."""

    def turn(image, s, t):
        image.ImageOrientationPatient = FOUR_CHAMBER
        image.SeriesNumber = 30

    archive.cine(1, FRAMES, series=series, description=description, change=turn, **settings)


def sax(archive, change=lambda image, s, t: None, **settings):
    """Write a short-axis cine."""

    def number(image, s, t):
        image.SeriesNumber = 10
        change(image, s, t)

    return archive.cine(SLICES, settings.pop("frames", FRAMES), change=number, **settings)


def late(archive, **settings):
    """Write late enhancement."""
    archive.stills(SLICES, **{"SeriesNumber": 50, **settings})


def study(folder, *, cine=True, chambers=True, enhancement=True, change=None, extra=None, **names):
    """Write a study; `change` alters images of the short axis, `extra` writes more."""
    archive = Archive(folder)
    if cine:
        sax(archive, change or (lambda image, s, t: None), description=names.get("sax", "cine sax"))
    if chambers:
        four_chamber(archive, names.get("lax_4ch", "cine 4ch"))
    if enhancement:
        late(archive, description=names.get("lge", "lge psir"))
    if extra:
        extra(archive)
    return archive


def retag(folder, **tags):
    """Set tags of all files of a folder; those that are None are deleted where they are stated."""
    for path in sorted(folder.iterdir()):
        image = pydicom.dcmread(path)
        for name, value in tags.items():
            if value is not None:
                setattr(image, name, value)
            elif name in image:
                delattr(image, name)
        image.save_as(path)


def named(**names):
    return lambda folder: study(folder, **names)


def changed(change):
    return lambda folder: study(folder, change=change)


def with_extra(extra, **settings):
    return lambda folder: study(folder, extra=extra, **settings)


def single_series(prefix, count, write, kind):
    """Write each slice of a stack as a series of its own."""

    def extra(archive):
        for s in range(count):
            write(archive, s, f"{prefix}{s + 1}", f"1.2.4.{kind}.{s}", s)

    return extra


def sax_slice(archive, s, description, series, number):
    archive.cine(
        1,
        FRAMES,
        series=series,
        description=description,
        position=lambda index: s * GAP_MM,
        offset=10 * s,
        change=lambda image, *_: setattr(image, "SeriesNumber", 100 + number),
    )


def late_slice(archive, s, description, series, number):
    image = base_dataset(
        SeriesInstanceUID=series,
        SeriesDescription=description,
        SeriesNumber=200 + number,
        InversionTime=280.0 + s,
        ImagePositionPatient=[float(v) for v in TO_APEX * s * GAP_MM],
        InstanceNumber=1,
    )
    set_pixels(image, 5000 + s)
    archive.save(image)


def other_cine(description, slices=SLICES, frames=FRAMES, change=lambda image, s, t: None, **tags):
    """Return a writer of a stack parallel to the short axis that is no cine of the heart."""

    def extra(archive):
        def alter(image, s, t):
            image.SeriesNumber = 80
            for name, value in tags.items():
                setattr(image, name, value)
            change(image, s, t)

        archive.cine(slices, frames, series="1.2.3.80", description=description, change=alter)

    return extra


def many_beats(image, s, t):
    image.TriggerTime = 800.0 * t


def inversion_series(image, s, t):
    image.InversionTime = 100.0 + 80 * t
    image.TriggerTime = 500.0


def no_triggers(image, s, t):
    image.TriggerTime = 0.0
    image.AcquisitionTime = clock(36000 + t)


def long_axis_stack(description, slices=9):
    def extra(archive):
        normal = FOUR_CHAMBER_NORMAL / np.linalg.norm(FOUR_CHAMBER_NORMAL)

        def turn(image, s, t):
            image.ImageOrientationPatient = FOUR_CHAMBER
            image.ImagePositionPatient = [float(v) for v in normal * 8 * s]
            image.SeriesNumber = 81

        archive.cine(slices, FRAMES, series="1.2.3.81", description=description, change=turn)

    return extra


def stir(description="t2 stir sax", **tags):
    return lambda archive: archive.stills(
        SLICES, series="1.2.3.90", description=description, EchoTime=50.0, SeriesNumber=60, **tags
    )


def late_without_time(archive):
    """Write late enhancement that states no inversion time."""
    late(archive, description="LGE_SAX")
    for path in archive.folder.glob("*.dcm"):
        image = pydicom.dcmread(path)
        if image.SeriesDescription == "LGE_SAX":
            del image.InversionTime
            image.save_as(path)


def odd_file(**tags):
    """Return a writer of one file whose tags are raw bytes that are no such values."""

    def extra(archive):
        image = base_dataset(
            SeriesInstanceUID="1.2.3.9",
            SeriesDescription="lge psir",
            SeriesNumber=50,
            ImagePositionPatient=[float(v) for v in TO_APEX * 99],
            InstanceNumber=77,
        )
        set_pixels(image, 5)
        for name, value in tags.items():
            if value is None:
                delattr(image, name)
            elif isinstance(value, bytes):
                element = pydicom.dataelem.RawDataElement(
                    pydicom.tag.Tag(name), "DS", len(value), value, 0, False, True
                )
                image[name] = element
            else:
                setattr(image, name, value)
        archive.save(image)

    return extra


def copied(count):
    def extra(archive):
        for path in sorted(archive.folder.iterdir())[:count]:
            path.with_name(f"{path.stem}(1).dcm").write_bytes(path.read_bytes())

    return extra


def colour(archive):
    image = base_dataset(
        SeriesInstanceUID="1.2.3.9",
        SeriesDescription="lge psir",
        ImagePositionPatient=[0.0, 0.0, 0.0],
        InstanceNumber=99,
    )
    image.SamplesPerPixel, image.PhotometricInterpretation = 3, "RGB"
    image.BitsAllocated = image.BitsStored = 8
    image.HighBit, image.PlanarConfiguration = 7, 0
    image.PixelData = bytes(image.Rows * image.Columns * 3)
    archive.save(image)


def undecodable(archive):
    path = max(archive.folder.glob("*.dcm"))
    for path in archive.folder.glob("*.dcm"):
        image = pydicom.dcmread(path)
        if image.SeriesDescription == "cine sax" and image.TriggerTime == 30.0 * 3:
            image.compress(pydicom.uid.RLELossless)
            image.PixelData = pydicom.encaps.encapsulate([b"\x00" * 8])
            image.save_as(path)
            return


def derived_without_position(archive):
    image = base_dataset(
        SeriesInstanceUID="1.2.3.95", SeriesDescription="mip", InstanceNumber=1, SeriesNumber=95
    )
    set_pixels(image, 5)
    archive.save(image)


def linked(folder):
    target = folder.parent.parent / f"elsewhere-{folder.name}"
    study(target)
    folder.parent.mkdir(parents=True, exist_ok=True)
    os.symlink(target, folder)


def dangling(folder):
    study(folder)
    os.symlink(folder / "nothing", folder / "link.dcm")


def zipped(folder):
    study(folder)
    with zipfile.ZipFile(folder / "more.zip", "w") as file:
        file.writestr("a.dcm", b"x")


def piped(folder):
    study(folder)
    os.mkfifo(folder / "pipe.dcm")


def patient(value, every=1):
    def write(folder):
        study(folder)
        for number, path in enumerate(sorted(folder.glob("*.dcm"))):
            if number % every == 0:
                image = pydicom.dcmread(path)
                if value is None:
                    del image.PatientID
                else:
                    image.PatientID = value
                image.save_as(path)

    return write


def lost_frames(*lost):
    """Lose frames of a slice of the short axis: pairs of slice and frame."""

    def write(folder):
        archive = Archive(folder)
        sax(archive, skip=lost)
        four_chamber(archive)
        late(archive)

    return write


def trigger(function):
    def change(image, s, t):
        image.TriggerTime = float(function(s, t))

    return change


def counting(image, s, t):
    image.TriggerTime = 0.0
    image.AcquisitionNumber = 1 + s * FRAMES + t


def counting_time(image, s, t):
    image.TriggerTime = 0.0
    image.AcquisitionTime = clock(36000 + s * FRAMES + t)
    image.ContentTime = clock(36000 + s * FRAMES + t)


def some_without_time(image, s, t):
    if s == 1 and t in (2, 5):
        del image.TriggerTime


def repeated(without_number=True, same_series=True):
    """Acquire slice 1 of the short axis twice."""

    def extra(archive):
        def alter(image, s, t):
            image.SeriesNumber = 10
            image.InstanceNumber = 1000 + t
            if without_number:
                del image.AcquisitionNumber

        archive.cine(
            1,
            FRAMES,
            series="1.2.3.1" if same_series else "1.2.3.2",
            position=lambda index: GAP_MM,
            offset=400,
            change=alter,
            start_s=36400.0,
        )

    return extra


def without_numbers(image, s, t):
    del image.AcquisitionNumber


def twice(folder):
    """Acquire the whole short axis twice, in two series with other trigger times."""
    archive = Archive(folder)
    sax(archive, without_numbers, series="1.2.3.1", offset=-50)

    def later(image, s, t):
        without_numbers(image, s, t)
        image.SeriesNumber = 11
        image.TriggerTime = 30.0 * t + 4

    archive.cine(SLICES, FRAMES, series="1.2.3.2", change=later, start_s=36900.0)
    four_chamber(archive)
    late(archive)


def one_slice(**removed):
    def write(folder):
        archive = Archive(folder)

        def alter(image, s, t):
            for name in removed:
                delattr(image, name)

        archive.cine(1, FRAMES, change=alter)
        four_chamber(archive)
        late(archive)

    return write


def shifted(s_aside, distance, slices=SLICES):
    def change(image, s, t):
        if s == s_aside:
            place = np.array(image.ImagePositionPatient, dtype=float) + distance * ROW
            image.ImagePositionPatient = [float(v) for v in place]

    return changed(change)


NO_CINE = "no cine"
FAULTS = {
    # Names in the archives of others.
    "underscores": Fault("K07", named(sax="cine_tfi_sax", lax_4ch="cine_HLA", lge="LGE_SA")),
    "chinese": Fault("K07", named(sax="短轴电影", lax_4ch="四腔心", lge="延迟强化")),
    "french": Fault(
        "K07", named(sax="Ciné Petit axe", lax_4ch="4_cavités", lge="rehaussement tardif")
    ),
    "german": Fault("K07", named(sax="kurze_Achse", lax_4ch="4-Kammerblick", lge="Spätaufnahme")),
    "spanish": Fault("K07", named(sax="EJE_CORTO_1", lax_4ch="4camaras", lge="realce_tardio")),
    "biobank": Fault(
        "K07",
        with_extra(single_series("CINE_segmented_SAX_b", SLICES, sax_slice, 1), cine=False),
    ),
    # Others than cines beside one.
    "molli": Fault(
        "K08", with_extra(other_cine("MOLLI_SAX", change=inversion_series)), reason=NO_CINE
    ),
    "perfusion": Fault(
        "K08", with_extra(other_cine("dynamic SAX 3sl", 3, 40, change=many_beats)), reason=NO_CINE
    ),
    "perfusion_without_triggers": Fault(
        "K08", with_extra(other_cine("SAX 3sl", 3, 40, change=no_triggers)), reason=NO_CINE
    ),
    "tags": Fault("K08", with_extra(other_cine("SAX GRID", 6))),
    "tagging_pulse": Fault(
        "K08", with_extra(other_cine("sax stack", 6, SequenceName="*fl2d1tag")), reason="tagged"
    ),
    "dense": Fault("K08", with_extra(other_cine("DENSE sax", 6))),
    "software": Fault("K08", with_extra(other_cine("suiteheart SAX", 6))),
    "second_cine": Fault(
        "K08", with_extra(other_cine("fl2d sax cine")), ambiguous=("sax",), reason="as likely"
    ),
    # Stacks of long axes.
    "hla_stack": Fault(
        "K09",
        with_extra(long_axis_stack("cine_tf2d_hla_stack"), chambers=False),
        {"sax": (SLICES, FRAMES), "lax_4ch": (9, FRAMES), "lge": (SLICES, 1)},
    ),
    "unnamed_stack": Fault("K09", with_extra(long_axis_stack("cine stack", 12))),
    "long_axis_called_short": Fault("K09", with_extra(long_axis_stack("cine sax stack", 12))),
    # Slices that are series.
    "numbered": Fault(
        "K10", with_extra(single_series("cine sax ", SLICES, sax_slice, 2), cine=False)
    ),
    "late_by_breath_hold": Fault(
        "K10", with_extra(single_series("LGE PSIR bh", SLICES, late_slice, 3), enhancement=False)
    ),
    "numbered_both": Fault(
        "K10",
        with_extra(
            lambda archive: (
                single_series("sax_", SLICES, sax_slice, 4)(archive),
                single_series("late ", SLICES, late_slice, 5)(archive),
            ),
            cine=False,
            enhancement=False,
        ),
    ),
    # Inversion without late enhancement, and the other way round.
    "stir": Fault(
        "K11",
        with_extra(stir(InversionTime=170.0), enhancement=False),
        {"sax": (SLICES, FRAMES), "lax_4ch": (1, FRAMES)},
        reason="echo time",
    ),
    "stir_beside": Fault("K11", with_extra(stir("sax", InversionTime=170.0))),
    "late_without_time": Fault(
        "K11",
        with_extra(late_without_time, enhancement=False),
    ),
    "late_alone_without_time": Fault(
        "K11",
        with_extra(late_without_time, cine=False, chambers=False, enhancement=False),
        {"lge": (SLICES, 1)},
        reason="no short-axis cine",
    ),
    # One odd file.
    "infinite_time": Fault(
        "K12", with_extra(odd_file(InversionTimes=[0.0, 1.8e308])), reason="InversionTimes"
    ),
    "no_rows": Fault("K12", with_extra(odd_file(Rows=None)), reason="Rows"),
    "no_number": Fault(
        "K12", with_extra(odd_file(SliceThickness=b"abc ")), reason="SliceThickness"
    ),
    "no_spacing": Fault(
        "K12", with_extra(odd_file(PixelSpacing=[0.0, 1.0])), reason="PixelSpacing"
    ),
    "copies": Fault("K13", with_extra(copied(7)), reason="copy of another file"),
    "derived": Fault("K13", with_extra(derived_without_position), reason="ImagePositionPatient"),
    "colours": Fault("K13", with_extra(colour), reason="colour image"),
    "no_pixels": Fault("K13", with_extra(undecodable), reason="without pixels"),
    # What lies in folders.
    "linked": Fault("K15", linked),
    "dangling": Fault("K15", dangling, reason="no regular file"),
    "zip": Fault("K15", zipped, reason="unpacked"),
    "pipe": Fault("K15", piped, reason="no regular file"),
    # Whose study it is.
    "patient_missing": Fault("K16", patient(None, every=2)),
    "patient_nowhere": Fault("K16", patient(None), reason="no file states a patient"),
    "anonymous": Fault("K16", patient("ANONYMOUS"), reason="stands for nobody"),
    "two_patients": Fault("K16", patient("P2", every=3), reason="state 2 patients"),
    # Frames that are lost.
    "one_frame_less": Fault("K34", lost_frames((1, 7)), reason="frames [7] are interpolated"),
    "lost_in_the_middle": Fault(
        "K34", lost_frames((2, 3), (2, 4)), reason="slice 2 has 6 frames of 8"
    ),
    "first_frame_lost": Fault("K34", lost_frames((0, 0)), reason="frames [0] are interpolated"),
    # Times that are none.
    "zero_triggers": Fault("K35", changed(counting)),
    "counting_times": Fault("K35", changed(counting_time)),
    "growing_triggers": Fault("K35", changed(trigger(lambda s, t: 900 * s + 30 * t))),
    "some_without_time": Fault("K35", changed(some_without_time)),
    # Repeats and single slices.
    "repeated": Fault(
        "K36",
        lambda folder: study(folder, change=without_numbers, extra=repeated()),
        reason="acquired 2 times",
    ),
    "repeated_series": Fault(
        "K36",
        lambda folder: study(folder, change=without_numbers, extra=repeated(same_series=False)),
        reason="acquired 2 times",
    ),
    "twice": Fault("K36", twice, reason="acquired 2 times"),
    "single_slice": Fault(
        "K36",
        one_slice(SliceThickness=True),
        ALL | {"sax": (1, FRAMES)},
        reason="thickness of the single slice is unknown",
    ),
    "slice_aside": Fault("K04", shifted(2, 15.0), reason="15.0 mm aside"),
    "last_slice_aside": Fault("K04", shifted(3, 12.5), reason="12.5 mm aside"),
    "first_slice_aside": Fault("K04", shifted(0, -10.0), reason="10.0 mm aside"),
}
