import os
import shutil
import subprocess
import sys

import pytest
import yaml

from cmrvlm.study.structures import LAYERS, STRUCTURE_TABLE, STRUCTURE_VALUES, chain_of
from cmrvlm.study.vocabulary import SEQUENCES, STRUCTURE_TERMS, STRUCTURES
from tests.conftest import CONF, ROOT

PAPILLARY_MUSCLES = """
    Structure(
        name="papillary",
        value=8,
        en="papillary muscles",
        zh="乳头肌",
        synonyms=("papillary muscle",),
        sequences=("sax",),
        color="#808000",
        layer=8,
        within="myo",
        may_be_absent=True,
    ),
)
"""
USE_PAPILLARY_MUSCLES = """
import numpy as np
from cmrvlm.inference.label_maps import check_coding, recoded
from cmrvlm.quantification.volumes import WALL
from cmrvlm.runs.run_folder import label_schema
from cmrvlm.study.drawing import COLORS
from cmrvlm.tasks.mask_requests import structures_asked
from cmrvlm.tasks.segmentation import SegmentTask
from data_modules.sources.masks import remap_labels

assert structures_asked("Segment the papillary muscles and the LV wall.") == ["myo", "papillary"]
assert structures_asked("请勾画乳头肌。") == ["papillary"]
assert label_schema()["structures"]["papillary"] == 8
assert COLORS["papillary"] == "#808000"
assert 8 in WALL

task = SegmentTask("papillary")
assert (task.name, task.sequence, task.may_be_absent) == ("segment_papillary", "sax", True)
assert task.case_on(["sax"], (0,)).region.values == (8,)
assert SegmentTask("myo").case_on(["sax"], (0,)).region.values == (2, 4, 5, 8)

mask = np.array([8, 2, 0], np.uint8)
check_coding({"papillary": 3})
assert recoded(mask, {"papillary": 3, "myo": 1}).tolist() == [3, 1, 0]
assert recoded(mask, {"myo": 1}).tolist() == [1, 1, 0]
assert remap_labels(np.array([30]), {30: "papillary"}, "mask.nii.gz").tolist() == [8]
"""


@pytest.mark.slow
def test_adding_a_structure_touches_the_table_alone(tmp_path):
    for package in ("cmrvlm", "data_modules"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, tmp_path / package, ignore=ignored)
    table = tmp_path / "cmrvlm" / "study" / "structures.py"
    head, _, tail = table.read_text().partition("\n)\n\nSTRUCTURE_TABLE")
    assert tail
    table.write_text(f"{head}{PAPILLARY_MUSCLES}\nSTRUCTURE_TABLE{tail}")
    subprocess.run(
        [sys.executable, "-c", USE_PAPILLARY_MUSCLES],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        check=True,
    )


def test_values_colours_and_layers_are_unique():
    for attribute in ("value", "color", "layer"):
        taken = [getattr(structure, attribute) for structure in STRUCTURE_TABLE.values()]
        assert len(set(taken)) == len(taken)


def test_myocardium_includes_scar_and_scar_includes_no_reflow():
    assert STRUCTURE_VALUES["myo"] == (2, 4, 5)
    assert STRUCTURE_VALUES["scar"] == (4, 5)
    assert STRUCTURE_VALUES["lv"] == (1,)
    assert chain_of("no_reflow") == ["no_reflow", "scar", "myo"]


def test_a_part_lies_in_a_higher_layer_than_the_whole():
    order = [structure.name for structure in LAYERS]
    for name, structure in STRUCTURE_TABLE.items():
        if structure.within is not None:
            assert order.index(name) > order.index(structure.within)


def test_names_and_values_are_those_of_saved_masks_and_runs():
    assert list(STRUCTURES) == ["background", "lv", "myo", "rv", "scar", "no_reflow", "la", "ra"]
    assert list(STRUCTURES.values()) == list(range(8))
    assert list(STRUCTURE_TERMS) == list(STRUCTURES)[1:]


@pytest.mark.parametrize(
    "path", sorted((CONF / "task").glob("segment_*.yaml")), ids=lambda path: path.stem
)
def test_tasks_ask_for_structures_where_they_are_drawn(path):
    settings = yaml.safe_load(path.read_text())
    structure = STRUCTURE_TABLE[settings["structure"]]
    assert settings.get("sequence", structure.usual_sequence) in structure.sequences
    assert set(structure.sequences) <= set(SEQUENCES)
