"""Late enhancement of the short axis: words, times, views and repeats that disagree."""

import numpy as np
import pytest

from data_modules.dicom.recognise import recognise
from data_modules.dicom.scan import files_of, scan
from data_modules.dicom.stacks import stacks_of
from tests.data_modules.dicom.archive import (
    GAP_MM,
    TO_APEX,
    Archive,
    base_dataset,
    clock,
    set_pixels,
)
from tests.data_modules.dicom.faulty_studies import FOUR_CHAMBER, FOUR_CHAMBER_NORMAL, four_chamber

TWO_CHAMBER_NORMAL = np.cross(TO_APEX, FOUR_CHAMBER_NORMAL)


def decisions(folder, keep="later"):
    images = [image for images in scan(files_of(folder)) for image in images]
    return recognise(stacks_of(images).stacks, keep=keep)


def late_of(found):
    return next((decision for decision in found if decision.sequence == "lge"), None)


def with_cine(folder, **names):
    return Archive(folder).cine(3, 8, **names)


def plane_of(normal):
    normal = normal / np.linalg.norm(normal)
    row = np.array([1.0, 0, 0]) - normal[0] * normal
    row /= np.linalg.norm(row)
    return [float(value) for value in (*row, *np.cross(normal, row))]


NAMES = (
    "T1 PSIR LGE SA",
    "LGE SAX pc",
    "LGE_dixon_SAX",
    "LGE SAX T1_IR",
    "3D T1 TFE late enh post contrast PC",
    "Late Gd SAX post-map",
    "LGE_overview_survey",
    "LGE_SAX_FLOWCOMP",
)


@pytest.mark.parametrize("name", NAMES)
def test_late_enhancement_is_it_whatever_else_its_name_holds(tmp_path, name):
    with_cine(tmp_path).stills(4, description=name)
    late = late_of(decisions(tmp_path))
    assert late.stack.slices == 4
    assert not late.ambiguous


@pytest.mark.parametrize("name", ["LGE map SAX", "PSIR sax perf", "LGE_flow_SAX", "LGE survey"])
def test_a_name_that_disagrees_without_an_inversion_time_is_a_doubt(tmp_path, name):
    with_cine(tmp_path).stills(4, description=name, InversionTime=0.0)
    late = late_of(decisions(tmp_path))
    assert late.ambiguous
    assert "another kind" in late.doubt


@pytest.mark.parametrize("name", ["MOLLI SAX", "sax perfusion", "T1 map post late SAX"])
def test_an_inversion_time_alone_is_left_out_with_a_doubt(tmp_path, name):
    with_cine(tmp_path).stills(4, description=name)
    found = decisions(tmp_path)
    assert late_of(found) is None
    assert any("inversion time" in decision.doubt for decision in found)


@pytest.mark.parametrize("name", ["MOLLI SAX", "STIR sax", "T1 map post late SAX"])
def test_beside_late_enhancement_other_stills_are_no_doubt(tmp_path, name):
    with_cine(tmp_path).stills(4).stills(4, series="1.2.3.10", description=name)
    found = decisions(tmp_path)
    assert late_of(found).stack.first.facts.description == "lge psir"
    assert not any(decision.doubt for decision in found)


@pytest.mark.parametrize("name", ["PSIR_SAX", "LGE sa", "MDE SAX"])
def test_a_protocol_that_names_the_weighting_does_not_disagree(tmp_path, name):
    archive = with_cine(tmp_path)
    archive.stills(4, description=name, ProtocolName=f"T1_{name}", InversionTime=0.0)
    assert not late_of(decisions(tmp_path)).ambiguous


VIEWS = {"LGE 4CH": FOUR_CHAMBER_NORMAL, "LGE 2CH": TWO_CHAMBER_NORMAL, "LGE": TWO_CHAMBER_NORMAL}


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("cine", [True, False])
def test_late_enhancement_of_another_view_is_left_out(tmp_path, name, cine):
    archive = with_cine(tmp_path) if cine else Archive(tmp_path)
    archive.stills(1, description=name, ImageOrientationPatient=plane_of(VIEWS[name]))
    found = decisions(tmp_path)
    assert late_of(found) is None
    assert not any(decision.doubt for decision in found)


@pytest.mark.parametrize("name", ["LGE 4CH stack", "LGE SAX", "LGE"])
@pytest.mark.parametrize("cine", [True, False])
def test_of_two_views_the_short_axis_is_taken(tmp_path, name, cine):
    archive = with_cine(tmp_path) if cine else Archive(tmp_path)
    archive.stills(3, description="LGE SAX")
    normal = FOUR_CHAMBER_NORMAL / np.linalg.norm(FOUR_CHAMBER_NORMAL)
    for s in range(6):
        image = base_dataset(
            SeriesInstanceUID="1.2.3.11",
            SeriesDescription=name,
            InversionTime=300.0,
            ImageOrientationPatient=FOUR_CHAMBER,
            ImagePositionPatient=[float(value) for value in normal * s * GAP_MM],
            InstanceNumber=s,
        )
        set_pixels(image, 7)
        archive.save(image)
    found = decisions(tmp_path)
    late = late_of(found)
    assert late.stack.slices == 3
    assert not late.ambiguous


@pytest.mark.parametrize("name", ["LGE 4CH", "LGE lax", "PSIR 2ch"])
def test_a_short_axis_that_is_named_another_view_is_a_doubt(tmp_path, name):
    with_cine(tmp_path).stills(4, description=name)
    assert "another view" in late_of(decisions(tmp_path)).doubt


def repeats(archive, count, description, times_ms=None, **tags):
    """Write late enhancement of 3 slices with several images each, brighter in later ones."""
    for s in range(3):
        for t in range(count):
            image = base_dataset(
                SeriesInstanceUID="1.2.3.9",
                SeriesDescription=description,
                ImagePositionPatient=[float(value) for value in TO_APEX * s * GAP_MM],
                InstanceNumber=1 + s * count + t,
                **tags,
            )
            if times_ms:
                image.TriggerTime = times_ms[t % len(times_ms)]
            set_pixels(image, 100 + t)
            archive.save(image)


@pytest.mark.parametrize("count", [2, 3, 8])
@pytest.mark.parametrize(
    ("name", "tags"),
    [("LGE SAX", {"InversionTime": 300.0}), ("PSIR SAX", {}), ("sa", {"InversionTime": 280.0})],
)
@pytest.mark.parametrize("keep", ["later", "first"])
def test_repeats_of_late_enhancement_are_no_frames(tmp_path, count, name, tags, keep):
    repeats(with_cine(tmp_path), count, name, **tags)
    late = late_of(decisions(tmp_path, keep))
    assert (late.stack.slices, late.stack.phases) == (3, 1)
    numbers = [images[0].times["instance_number"] for images in late.stack.frames]
    kept = count if keep == "later" else 1
    assert numbers == [s * count + kept for s in range(3)]
    assert any(f"the {keep} one is kept" in note for note in late.stack.notes)


def test_repeats_with_trigger_times_that_jitter_are_no_frames(tmp_path):
    repeats(with_cine(tmp_path), 6, "LGE SAX", [650.0, 652.5, 647.5], InversionTime=300.0)
    assert late_of(decisions(tmp_path)).stack.phases == 1


@pytest.mark.parametrize("echoes_ms", [(1.2, 2.4), (1.0, 3.0, 5.0)])
def test_echoes_of_late_enhancement_are_never_frames(tmp_path, echoes_ms):
    archive = with_cine(tmp_path)
    for t, echo_ms in enumerate(echoes_ms):
        archive.stills(3, description="LGE SAX", EchoTime=echo_ms, ContentTime=clock(t))
    assert late_of(decisions(tmp_path)) is None


def test_the_four_chamber_cine_is_found_beside_them(tmp_path):
    archive = with_cine(tmp_path)
    four_chamber(archive)
    repeats(archive, 8, "LGE SAX", InversionTime=300.0)
    assert {one.sequence for one in decisions(tmp_path)} == {"sax", "lax_4ch", "lge"}
