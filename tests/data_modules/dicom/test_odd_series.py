"""Names, times and repeats of series as scanners of the world write them."""

import numpy as np
import pytest

from data_modules.dicom.likeness import plain_name
from data_modules.dicom.recognise import recognise
from data_modules.dicom.scan import files_of, scan
from data_modules.dicom.stacks import stacks_of
from data_modules.dicom.volumes import series_of
from data_modules.dicom.word_table import LOCALIZER, OTHER_VIEW
from data_modules.dicom.words import Vocabulary
from tests.data_modules.dicom.archive import GAP_MM, Archive, enhanced
from tests.data_modules.dicom.test_phase_series import TRUTH

NAMES = {
    "lge": (
        "LGE短軸",
        "遅延相 短軸",
        "지연기 조영",
        "지연 조영증강",
        "DE-MRI short axis",
        "Spätaufnahmen Kurzachse",
        "viabilidad eje corto",
        "retard gado PA",
    ),
    "lax_4ch": ("HORIZ LONG AXIS", "FIESTA 4CHAM", "ciné 4C", "4방 시네", "사방 영화", "四室 cine"),
    LOCALIZER: ("Übersicht", "Localizadores", "スカウト", "로컬라이저", "LOC", "Localisation"),
    OTHER_VIEW: ("Cine 2 cámaras", "cine 3 camere", "cine_2KB", "2방 시네", "二室 cine"),
}


@pytest.mark.parametrize(
    ("meaning", "name"), [(meaning, name) for meaning, names in NAMES.items() for name in names]
)
def test_words_of_many_languages_are_known(meaning, name):
    assert Vocabulary().names(name, meaning)


def images_of(folder):
    return [image for images in scan(files_of(folder)) for image in images]


def decided(folder):
    """Return sequence to decision."""
    decisions = recognise(stacks_of(images_of(folder)).stacks)
    return {decision.sequence: decision for decision in decisions if decision.sequence}


@pytest.mark.parametrize(
    "names",
    [
        ("cine SAX basal", "cine SAX mid", "cine SAX apical"),
        ("sax_base", "sax_middle", "sax_apex"),
        ("短軸 基底", "短軸 中間", "短軸 心尖"),
        ("Kurzachse Basis 1", "Kurzachse Mitte 2", "Kurzachse Spitze 3"),
    ],
)
def test_slices_that_are_named_by_their_level_are_one_stack(tmp_path, names):
    archive = Archive(tmp_path)
    for level, name in enumerate(names):

        def named(image, s, t, level=level, name=name):
            image.SpecificCharacterSet = "ISO_IR 192"
            image.SeriesDescription = name
            image.SeriesNumber = level + 1
            image.stored += 10 * level

        archive.cine(
            1,
            8,
            series=f"1.2.3.{level}",
            position=lambda index, level=level: level * GAP_MM,
            change=named,
        )
    stack = decided(tmp_path)["sax"].stack
    assert (stack.slices, stack.phases) == (3, 8)
    np.testing.assert_array_equal(series_of(stack)[0].image.mean(axis=(2, 3)), TRUTH)


@pytest.mark.parametrize("name", ["cine sax repeat", "cine sax rpt 2", "cine sax wdh"])
def test_a_slice_that_is_named_a_repeat_replaces_the_first(tmp_path, name):
    archive = Archive(tmp_path).cine(3, 8)
    archive.cine(
        1,
        8,
        series="1.2.3.7",
        description=name,
        offset=50,
        position=lambda index: GAP_MM,
        start_s=37000.0,
    )
    sax = series_of(decided(tmp_path)["sax"].stack)[0]
    repeated = TRUTH + np.array([[0], [40], [0]])
    np.testing.assert_array_equal(sax.image.mean(axis=(2, 3)), repeated)


def test_names_that_differ_by_a_view_stay_apart(tmp_path):
    first = Archive(tmp_path / "a").cine(1, 1, description="cine sax 1")
    second = Archive(tmp_path / "b").cine(1, 1, description="cine lvot 1")
    names = [plain_name(images_of(archive.folder)[0]) for archive in (first, second)]
    assert names == ["cine sax", "cine lvot"]


@pytest.mark.parametrize("name", ["RT_cine_SAX", "realtime cine sax", "cine sax free breathing"])
def test_of_two_cines_the_gated_one_is_the_short_axis(tmp_path, name):
    archive = Archive(tmp_path).cine(3, 8)
    archive.cine(3, 16, series="1.2.3.7", description=name)
    sax = decided(tmp_path)["sax"]
    assert sax.stack.phases == 8
    assert not sax.ambiguous


def test_a_cine_with_an_inversion_is_less_likely_the_short_axis(tmp_path):
    def inverted(image, s, t):
        image.InversionTime = 300.0

    archive = Archive(tmp_path).cine(3, 8)
    archive.cine(3, 16, series="1.2.3.7", description="cine sax IR", change=inverted)
    assert decided(tmp_path)["sax"].stack.phases == 8


def without_times(image, s, t):
    del image.TriggerTime
    image.AcquisitionTime = image.ContentTime = f"1000{s:02d}"
    image.InstanceNumber = 1 + s


@pytest.mark.parametrize(
    ("group", "creator", "element"),
    [(0x0019, "SIEMENS MR HEADER", 0x16), (0x2001, "Philips Imaging DD 001", 0x08)],
)
def test_times_in_tags_of_vendors_order_frames(tmp_path, group, creator, element):
    def private(image, s, t):
        without_times(image, s, t)
        image.private_block(group, creator, create=True).add_new(element, "DS", str(t + 1))

    (stack,) = stacks_of(images_of(Archive(tmp_path).cine(3, 8, change=private).folder)).stacks
    np.testing.assert_array_equal(series_of(stack)[0].image.mean(axis=(2, 3)), TRUTH)


def lacks_one(s, t):
    return (s, t) == (1, 4)


def lacks_a_slice(s, t):
    return s == 2


def lacks_every_fifth(s, t):
    return (3 * t + s) % 5 == 2


@pytest.mark.parametrize("lacks", [lacks_one, lacks_a_slice, lacks_every_fifth])
def test_missing_trigger_times_are_those_of_other_slices(tmp_path, lacks):
    def change(image, s, t):
        if lacks(s, t):
            del image.TriggerTime

    (stack,) = stacks_of(images_of(Archive(tmp_path).cine(3, 8, change=change).folder)).stacks
    series, _ = series_of(stack)
    assert series.frame_times_ms == tuple(30.0 * np.arange(8))
    assert any("trigger times" in note for note in stack.notes)
    np.testing.assert_array_equal(series.image.mean(axis=(2, 3)), TRUTH)


@pytest.mark.parametrize("time_first", [True, False])
@pytest.mark.parametrize("missing", ["none", "some", "all"])
def test_dimensions_of_a_multi_frame_file_order_its_frames(tmp_path, time_first, missing):
    """Frames lie in random order, and no temporal position is stated beside the dimensions."""
    image = enhanced(3, 8, stacks=1)
    image.DimensionIndexSequence = []
    pointers = [0x00209128, 0x00209057]
    if not time_first:
        pointers.reverse()
    for pointer in pointers:
        dimension = type(image.SharedFunctionalGroupsSequence[0])()
        dimension.DimensionIndexPointer = pointer
        image.DimensionIndexSequence.append(dimension)
    for index, group in enumerate(image.PerFrameFunctionalGroupsSequence):
        content = group.FrameContentSequence[0]
        indices = [content.TemporalPositionIndex, content.InStackPositionNumber]
        content.DimensionIndexValues = indices if time_first else indices[::-1]
        del content.TemporalPositionIndex
        if missing == "all" or (missing == "some" and index % 5 == 2):
            del group.CardiacSynchronizationSequence
    Archive(tmp_path).save(image)
    (stack,) = stacks_of(images_of(tmp_path)).stacks
    series, _ = series_of(stack)
    np.testing.assert_array_equal(series.image.mean(axis=(2, 3)), TRUTH)
    expected = None if missing == "all" else tuple(40.0 * np.arange(8))
    assert series.frame_times_ms == expected


def test_times_of_slices_that_follow_one_another_are_not_filled_in(tmp_path):
    def growing(image, s, t):
        image.TriggerTime = 900.0 * s + 30.0 * t
        if (s, t) == (0, 4):
            del image.TriggerTime

    (stack,) = stacks_of(images_of(Archive(tmp_path).cine(3, 8, change=growing).folder)).stacks
    assert stack.time_key != "trigger_time_ms"


def zero_slice(image, s, t):
    if s == 1:
        image.TriggerTime = 0.0


def constant_slice(image, s, t):
    if s == 2:
        image.TriggerTime = 37.5


def zeros_in_a_slice(image, s, t):
    if s == 0 and t in (3, 5, 6):
        image.TriggerTime = 0.0


@pytest.mark.parametrize("change", [zero_slice, constant_slice, zeros_in_a_slice])
@pytest.mark.parametrize("skip", [(), ((3, 4),)])
def test_a_time_that_several_frames_state_is_that_of_none(tmp_path, change, skip):
    Archive(tmp_path).cine(4, 8, change=change, skip=skip)
    (stack,) = stacks_of(images_of(tmp_path)).stacks
    series, _ = series_of(stack)
    assert series.frame_times_ms == tuple(30.0 * np.arange(8))
    assert any("trigger times" in note for note in stack.notes)
    # The frame that is lost is interpolated between its neighbours.
    expected = np.vstack([TRUTH, TRUTH[-1:] + 10])
    np.testing.assert_allclose(series.image.mean(axis=(2, 3)), expected, atol=1e-3)
    assert list(stack.filled_frames().values()) == [[4] for _ in skip]


def test_times_that_are_zero_in_most_slices_are_not_filled_in(tmp_path):
    def change(image, s, t):
        if s != 1:
            image.TriggerTime = 0.0

    (stack,) = stacks_of(images_of(Archive(tmp_path).cine(4, 8, change=change).folder)).stacks
    assert stack.time_key != "trigger_time_ms"
    assert series_of(stack)[0].frame_times_ms is None
