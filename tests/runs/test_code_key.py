import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import cmrvlm
from cmrvlm.runs.code_key import import_closure

ROOT = Path(cmrvlm.__file__).parents[1]
PRINT_FOLDER = """
from pathlib import Path
from cmrvlm.transforms.intensity import PercentileIntensity
from cmrvlm.transforms.preprocessing import Preprocessing
from data_modules.storage.cache import StudyCache
from data_modules.sources.phantom.source import PhantomSource

preprocessing = Preprocessing({"scale": PercentileIntensity()})
print(StudyCache(Path("cache"), PhantomSource(count=2), preprocessing).folder.name)
"""


@pytest.fixture
def tree(tmp_path):
    """A copy of the packages and of the README, to change."""
    for package in ("cmrvlm", "data_modules"):
        shutil.copytree(
            ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copy(ROOT / "README.md", tmp_path)
    return tmp_path


def key(tree):
    environment = os.environ | {"PYTHONPATH": str(tree)}
    done = subprocess.run(
        [sys.executable, "-c", PRINT_FOLDER],
        cwd=tree,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def replace_in(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        ("cmrvlm/study/normal_ranges.py", "106.0", "107.0"),
        *(
            pytest.param(module, "    return ", "    return 0 or ", marks=pytest.mark.slow)
            for module in (
                "cmrvlm/quantification/ventricles.py",
                "cmrvlm/transforms/intensity.py",
                "data_modules/sources/phantom/render.py",
            )
        ),
    ],
)
def test_code_that_makes_a_study_changes_its_key(tree, module, old, new):
    before = key(tree)
    replace_in(tree / module, old, new)
    assert key(tree) != before


def test_what_makes_no_study_keeps_the_key(tree):
    before = key(tree)
    (tree / "README.md").write_text("another text\n")
    replace_in(tree / "cmrvlm/study/normal_ranges.py", '"""Normal ranges', '"""Ranges')
    replace_in(tree / "cmrvlm/losses/language.py", "    return ", "    return 0 or ")
    assert key(tree) == before


def test_the_closure_holds_indirect_imports_and_no_libraries():
    closure = import_closure(["data_modules.sources.kaggle_dsb2"])
    assert {"data_modules.dicom.stacks", "cmrvlm.study.study", "cmrvlm.errors"} <= closure.keys()
    assert "numpy" not in closure
    assert "cmrvlm.train" not in closure
