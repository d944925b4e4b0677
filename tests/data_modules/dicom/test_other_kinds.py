"""What a study's names, times and places tell of series that are no cine or no part of it."""

import numpy as np
import pydicom
import pytest

from cmrvlm.errors import CmrvlmError
from data_modules.dicom.recognise import recognise
from data_modules.dicom.scan import files_of, scan
from data_modules.dicom.stacks import stacks_of
from data_modules.dicom.word_table import CINE, OTHER_KIND, OTHER_VIEW, REAL_TIME
from data_modules.dicom.words import Vocabulary
from tests.data_modules.dicom.archive import GAP_MM, TO_APEX, Archive, clock
from tests.data_modules.dicom.faulty_studies import four_chamber
from tests.data_modules.dicom.test_faulty_studies import ingest

NAMES = {
    "lax_4ch": ("cine LAX4", "lax 4", "4CHV", "4CV", "4CHB", "Vier-Kammer", "4CHView"),
    "lge": ("DE 10min SA", "DE_15min_SAX", "LE_SAX", "延时增强", "late enh", "Late Gd"),
    "sax": ("SHAX", "cine_shax", "DE SHAX"),
    OTHER_KIND: ("stress SAX", "SA rest", "SAX perf"),
    OTHER_VIEW: ("lax 2", "lax", "3CH"),
}
# As hospitals of other countries write them, by what they name.
OF_LANGUAGES = {
    "sax": (
        *("RT petit axe", "ciné petit axe", "PTAXE", "petits axes", "eje corto", "EjeCorto RT", "eixo curto"),
        *("AsseCorto", "korte-as cine", "w osi krótkiej", "oś krótka", "kortaxel", "kısa aks", "kısa eksen"),
        *("по короткой оси", "krátká osa", "rövid tengely", "シネ短軸", "左室短軸", "심장단축"),
    ),
    "lax_4ch": (
        *("grand axe 4 cavités", "cine 4cav", "cuatro cámaras", "4 cavidades", "quatro câmaras", "4 camere"),
        *("quattro cavità", "vierkamer", "vier kamer", "4-jamowa", "projekcja czterojamowa", "fyrkammare"),
        *("firekammer", "dört boşluk", "четырёхкамерная", "4-камерная", "四腔像", "水平長軸", "네방", "4방"),
    ),
    "lge": (
        *("rehaussement tardif", "RT petit axe tardif", "réhaussement", "realce tardío", "realce tardio"),
        *("realce de gadolínio", "tardivo", "impregnazione tardiva", "vertraagde aankleuring", "RT LGE"),
        *("późne wzmocnienie", "opóźnione wzmocnienie", "senförstärkning", "遅延造影", "后期强化", "지연조영"),
    ),
    OTHER_VIEW: (
        *("grand axe", "deux cavités", "dos cámaras", "eixo longo", "due camere", "lange as", "tweekamer"),
        *("oś długa", "dwujamowa", "трёхкамерная", "длинная ось", "uzun aks", "2腔", "左室流出路", "장축"),
    ),
    REAL_TIME: ("temps réel", "tempo reale", "RT sax", "realtijd", "リアルタイム", "실시간", "实时"),
    CINE: ("ciné", "シネ", "시네", "кино", "電影"),
}  # fmt: skip
FRIENDS = {
    "lax_4ch": ("lax 2", "3CH", "LAX3", "cine SAX 4", "2CHV"),
    "lge": ("plan de coupe", "cine sax de 8 mm", "LE", "vue de coeur"),
    OTHER_KIND: ("restaurant", "stressed"),
    "sax": ("grand axe", "eje largo", "asse lungo", "lange as", "長軸", "장축", "ptax"),
    REAL_TIME: ("cart", "short axis", "art"),
}


def pairs(table):
    return [(meaning, name) for meaning, names in table.items() for name in names]


@pytest.mark.parametrize(("meaning", "name"), pairs(NAMES) + pairs(OF_LANGUAGES))
def test_words_that_scanners_write_are_known(meaning, name):
    assert Vocabulary().names(name, meaning)


@pytest.mark.parametrize(("meaning", "name"), pairs(FRIENDS))
def test_words_that_look_like_others_are_none(meaning, name):
    assert not Vocabulary().names(name, meaning)


def decided(folder):
    """Return sequence to decision."""
    images = [image for images in scan(files_of(folder)) for image in images]
    decisions = recognise(stacks_of(images).stacks)
    return {decision.sequence: decision for decision in decisions if decision.sequence}


PROTOCOLS = (
    "CARDIAC FUNCTION PERFUSION VIABILITY",
    "Cardiac Viability",
    "Cardiac survey + function",
    "CARDIAC SAX 4CH 2CH LGE",
)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_protocol_of_the_whole_examination_tells_nothing(tmp_path, protocol):
    archive = Archive(tmp_path).cine(3, 8, description="FIESTA SAX")
    four_chamber(archive, "FIESTA 4CH")
    for path in archive.folder.glob("*.dcm"):
        add_protocol(path, protocol)
    archive.stills(3, description="MDE SAX", ProtocolName=protocol)
    archive.stills(3, series="1.2.3.12", description="PD", InversionTime=0.0, ProtocolName=protocol)
    found = decided(tmp_path)
    assert set(found) == {"sax", "lax_4ch", "lge"}
    assert found["lge"].stack.first.facts.series_name == "MDE SAX"
    assert not any(decision.ambiguous for decision in found.values())


def add_protocol(path, protocol):
    image = pydicom.dcmread(path)
    image.ProtocolName = protocol
    image.save_as(path)


@pytest.mark.parametrize("protocol", ["Cardiac survey + function", "Viability", "SCOUT CINE"])
def test_a_protocol_of_cines_alone_is_none_of_stills(tmp_path, protocol):
    archive = Archive(tmp_path).cine(3, 8, description="FIESTA SAX")
    four_chamber(archive, "4CH")
    for path in archive.folder.glob("*.dcm"):
        add_protocol(path, protocol)
    found = decided(tmp_path)
    assert set(found) == {"sax", "lax_4ch"}
    assert not any(decision.ambiguous for decision in found.values())


@pytest.mark.parametrize("kind", ["localizer", "perfusion", "PSIR"])
def test_a_protocol_still_tells_of_the_series_that_alone_has_it(tmp_path, kind):
    archive = Archive(tmp_path).cine(3, 8)
    archive.stills(3, description="sax", InversionTime=0.0, ProtocolName=kind)
    assert ("lge" in decided(tmp_path)) == (kind == "PSIR")


@pytest.mark.parametrize("name", ["viability", "LGE SAX", "survey LGE"])
def test_a_study_of_one_kind_keeps_its_words(tmp_path, name):
    Archive(tmp_path).stills(3, description=name, InversionTime=300.0)
    assert set(decided(tmp_path)) == {"lge"}


def seconds_apart(image, t):
    image.AcquisitionTime = clock(36000 + 0.9 * t)


def jitter_of_seven(image, s, t):
    image.TriggerTime = 250 + (t % 7) * 2.5
    seconds_apart(image, t)


def wide_jitter(image, s, t):
    image.TriggerTime = 250 + (t * 37 % 101) * 3.0
    seconds_apart(image, t)


def small_jitter(image, s, t):
    image.TriggerTime = 250 + (t * 37 % 101) * 0.5


@pytest.mark.parametrize("jitter", [jitter_of_seven, wide_jitter, small_jitter])
@pytest.mark.parametrize(("slices", "count"), [(3, 50), (8, 20), (1, 12)])
def test_measurements_whose_trigger_times_jitter_are_no_cine(tmp_path, jitter, slices, count):
    Archive(tmp_path).cine(slices, count, description="sax", change=jitter)
    assert not decided(tmp_path)


@pytest.mark.parametrize("step_ms", [20.0, 34.3, 100.0])
def test_times_that_rise_over_a_beat_are_a_cine_whatever_the_clock(tmp_path, step_ms):
    def counted(image, s, t):
        image.TriggerTime = step_ms * t
        seconds_apart(image, t)

    Archive(tmp_path).cine(3, 12, change=counted)
    assert decided(tmp_path)["sax"].stack.phases == 12


@pytest.mark.parametrize(("slices", "count"), [(1, 8), (3, 8), (3, 12)])
@pytest.mark.parametrize("triggers", [True, False])
def test_echoes_are_no_cine(tmp_path, slices, count, triggers):
    def echoes(image, s, t):
        image.EchoTime = 1.5 + 2 * t
        if not triggers:
            del image.TriggerTime

    Archive(tmp_path).cine(slices, count, description="SAX multi echo", change=echoes)
    assert not decided(tmp_path)


def other_pixels(image, s, t):
    image.PixelSpacing = [1.7, 1.7]


def tilted(image, s, t):
    normal = TO_APEX + 0.03 * np.array([1.0, 0.0, 0.0])
    row = np.cross(np.array([0.0, 1.0, 0.0]), normal)
    row /= np.linalg.norm(row)
    column = np.cross(normal / np.linalg.norm(normal), row)
    image.ImageOrientationPatient = [float(value) for value in (*row, *column)]


CASES = {
    "other_pixels": (other_pixels, "cine sax", 2 * GAP_MM),
    "tilted": (tilted, "cine sax", 2 * GAP_MM),
    "tip": (other_pixels, "SAX tip", 5 * GAP_MM),
}


@pytest.mark.parametrize("case", CASES)
def test_a_cine_that_may_be_a_slice_of_the_short_axis_is_a_doubt(tmp_path, case):
    change, name, height_mm = CASES[case]
    archive = Archive(tmp_path / "in").cine(5, 8, skip=((2, None),))
    archive.cine(
        1,
        8,
        series="1.2.3.7",
        description=name,
        change=change,
        position=lambda index: height_mm,
    )
    summary, results = ingest(tmp_path / "in", tmp_path / "out")
    (result,) = results.values()
    assert any("lies within the short axis" in doubt for doubt in result.doubts)
    assert summary["partial"]


@pytest.mark.parametrize("name", ["RT cine sax", "DENSE sax", "cine 4ch"])
def test_cines_that_are_named_otherwise_are_no_doubt(tmp_path, name):
    archive = Archive(tmp_path / "in").cine(5, 8)
    if name == "cine 4ch":
        four_chamber(archive, name)
    else:
        archive.cine(3, 8, series="1.2.3.7", description=name, change=other_pixels)
    _, results = ingest(tmp_path / "in", tmp_path / "out")
    (result,) = results.values()
    assert not result.doubts


@pytest.mark.parametrize("slices", [1, 2, 5])
@pytest.mark.parametrize(
    "name", ["RT petit axe", "RT eje corto", "tempo reale asse corto", "realtijd korte as"]
)
def test_real_time_before_a_name_leaves_it_what_it_is(tmp_path, name, slices):
    archive = Archive(tmp_path / "in").cine(slices, 8, description=name)
    four_chamber(archive, "RT grand axe 4 cavités")
    decisions = decided(tmp_path / "in")
    assert decisions["sax"].stack.slices == slices
    assert set(decisions) == {"sax", "lax_4ch"}
    assert not any(decision.ambiguous for decision in decisions.values())


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"rules": {"axis": "la4ch"}}, "ingest.rules"),
        ({"rules": {"axis": "4ch"}}, "ingest.rules"),
        ({"rules": {"axis": None}}, "ingest.rules"),
        ({"rules": ["axis"]}, "ingest.rules"),
        ({"rules": "axis: sax"}, "ingest.rules"),
        ({"rules": {"axis(": "sax"}}, "ingest.rules"),
        ({"words": {"la4ch": ["axis"]}}, "ingest.words"),
        ({"words": ["axis"]}, "ingest.words"),
        ({"words": {"sax": "axis"}}, "ingest.words.sax"),
        ({"words": {"sax": [4, "axis"]}}, "ingest.words.sax"),
        ({"words": {"sax": None}}, "ingest.words.sax"),
    ],
)
def test_rules_and_words_of_another_form_or_for_nothing_known_are_refused(settings, field):
    with pytest.raises(CmrvlmError) as refused:
        Vocabulary(**settings)
    assert refused.value.field == field
    assert refused.value.remedy
    if "4ch" in str(settings):
        assert "lax_4ch" in refused.value.remedy
