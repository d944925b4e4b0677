import importlib
import json
import shutil

import nibabel as nib
import numpy as np
import pytest

from cmrvlm.config.moved import MOVED_MODULES, current_name
from cmrvlm.predict import predict
from cmrvlm.study.files import write_study
from data_modules.sources.phantom.source import PhantomSource
from tests.conftest import ROOT, composed

# Trained on phantoms by the commit before the moves, for thirty steps.
RUN = ROOT / "tests" / "runs" / "run_before_moves"


@pytest.fixture
def run(tmp_path):
    return shutil.copytree(RUN, tmp_path / "run")


def test_a_run_from_before_the_moves_answers_as_it_did(run, tmp_path):
    source = PhantomSource(count=2, size=48, slices=3, frames=4)
    write_study(source.load(source.study_ids()[1]), tmp_path / "study")
    settings = (
        f"run={run}",
        f"study={tmp_path / 'study'}",
        "ask='Is the left ventricle dilated?'",
        "max_new_tokens=60",
    )
    result = predict(composed(*settings, f"out={tmp_path / 'out'}", name="predict"))
    expected = json.loads((RUN / "expected.json").read_text())
    for name in ("report", "disease", "answer"):
        assert result[name] == expected[name]
    assert result["probabilities"] == pytest.approx(expected["probabilities"], abs=1e-3)
    assert result["measurements"] == pytest.approx(expected["measurements"], abs=0.2)
    mask = np.asarray(nib.load(tmp_path / "out" / "sax_mask.nii.gz").dataobj)
    assert not mask.any()  # as it was: thirty steps teach no mask


@pytest.mark.parametrize("former", MOVED_MODULES)
def test_every_former_module_leads_to_one_that_is_there(former):
    importlib.import_module(MOVED_MODULES[former])
    assert current_name(f"{former}.Name") == f"{MOVED_MODULES[former]}.Name"


def test_other_names_stay():
    assert current_name("cmrvlm.encoders.conv.ConvEncoder") == "cmrvlm.encoders.conv.ConvEncoder"
