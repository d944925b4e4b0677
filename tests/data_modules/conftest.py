"""Small phantoms, with and without a broken study, and a preprocessing that scales them."""

import pytest

from cmrvlm.errors import CmrvlmError
from cmrvlm.transforms.intensity import PercentileIntensity
from cmrvlm.transforms.preprocessing import Preprocessing
from data_modules.sources.phantom.source import PhantomSource

TINY = {"size": 32, "slices": 2, "frames": 3}


class BrokenSource(PhantomSource):
    """Phantoms of which the study with index 2 cannot be read."""

    def load(self, study_id):
        if study_id.endswith("2"):
            raise CmrvlmError("the file is truncated", file=f"{study_id}.nii.gz")
        return super().load(study_id)


@pytest.fixture
def tiny_source():
    """Return a function that makes a source of small phantoms."""

    def make(count=6, **changes):
        return PhantomSource(count=count, **TINY | changes)

    return make


@pytest.fixture
def broken_source():
    """Return a function that makes a source of small phantoms of which one is broken."""

    def make(count=6):
        return BrokenSource(count=count, **TINY)

    return make


@pytest.fixture
def scaling():
    """Return a function that makes a preprocessing with an upper percentile."""

    def make(upper=99.0):
        return Preprocessing({"scale": PercentileIntensity(upper=upper)})

    return make
