import pytest

from cmrvlm.study import vocabulary
from cmrvlm.study.normal_ranges import NORMAL_RANGES, outside_normal


def test_sixteen_diseases_and_twenty_three_findings():
    assert len(vocabulary.DISEASES) == 16
    assert len(vocabulary.FINDINGS) == 23


@pytest.mark.parametrize(
    "table",
    ["DISEASES", "FINDINGS", "SEQUENCE_TERMS", "PHASE_TERMS", "LEVEL_TERMS", "STRUCTURE_TERMS"],
)
def test_names_are_unique_in_both_languages(table):
    terms = getattr(vocabulary, table).values()
    for language in vocabulary.LANGUAGES:
        names = [term.name(language) for term in terms]
        assert len(set(names)) == len(names)
    assert all(not term.zh.isascii() and term.en.isascii() for term in terms)


def test_low_ejection_fraction_and_large_volumes_are_abnormal():
    assert outside_normal("lvef_percent", 40, "m")
    assert not outside_normal("lvef_percent", 80, "m")
    assert outside_normal("lvedv_ml", 250, "m")
    assert not outside_normal("lvedv_ml", 60, "f")
    assert not outside_normal("lvedv_ml", 200, "m")
    assert outside_normal("lvedv_ml", 200, "f")


def test_ranges_are_ordered():
    for sexes in NORMAL_RANGES.values():
        for lower, upper in sexes.values():
            assert lower is None or upper is None or lower < upper
