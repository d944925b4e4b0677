"""Shared fixtures: small phantoms, a small model, composed configurations, real data where it is there."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from transformers import PreTrainedTokenizerBase

from cmrvlm.config.command import resolved
from cmrvlm.instructions.collate import Collator
from cmrvlm.models.vision_language_model import VisionLanguageModel
from cmrvlm.runs.wiring import build_collator, build_data, build_model, build_tokenizer
from data_modules.sources.phantom.source import PhantomSource
from data_modules.study_data_module import StudyDataModule

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"  # for processes that tests start: workers share the cores

ROOT = Path(__file__).parents[1]
CONF = ROOT / "conf"


@pytest.fixture(autouse=True, scope="session")
def two_threads():
    torch.set_num_threads(2 if "PYTEST_XDIST_WORKER" not in os.environ else 1)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the real data sets; the test skips where there is none."""
    for folder in (os.environ.get("CMRVLM_REAL_DATA"), ROOT.parent / "shared" / "data"):
        if folder and Path(folder).is_dir():
            return Path(folder)
    pytest.skip("no real data: set CMRVLM_REAL_DATA")


@pytest.fixture(scope="session")
def source() -> PhantomSource:
    return PhantomSource(count=32, size=48, slices=4, frames=5, spacing_mm=(3.9, 4.1))


@pytest.fixture(scope="session")
def study(source):
    """Dilated cardiomyopathy with all three sequences."""
    return source.load(source.study_ids()[0])


def composed(*overrides: str, name: str = "train"):
    """A plain resolved configuration."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return resolved(compose(name, overrides=list(overrides)))


@pytest.fixture(scope="session")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def small_config(tmp_path, cache) -> Callable:
    """Configuration of a fast run without samples, whose files lie in the test's folder."""

    def make(*overrides: str, folder: str = "run"):
        run = tmp_path / folder
        return composed(
            "+debug=fast",
            # Shares of the data are those that a test asks for.
            "data.trial=false",
            "callbacks.samples=null",
            f"paths.cache={cache}",
            f"out={run}",
            f"run_dir={run}",
            *overrides,
        )

    return make


@dataclass(frozen=True)
class Untrained:
    """What stage 3 is built of, on small phantoms and before any training."""

    data: StudyDataModule
    tokenizer: PreTrainedTokenizerBase
    model: VisionLanguageModel
    collator: Collator


@pytest.fixture(scope="session")
def untrained(cache, tmp_path_factory) -> Untrained:
    """Stage 3 before any training. Nobody may change it."""
    run = tmp_path_factory.mktemp("untrained")
    config = composed(
        "+experiment=stage3", "+debug=fast", f"paths.cache={cache}", f"out={run}", f"run_dir={run}"
    )
    data = build_data(config)
    data.prepare_data()
    tokenizer = build_tokenizer(config, data, None)
    torch.manual_seed(0)
    model = build_model(config, tokenizer).eval()
    data.collator = build_collator(model, tokenizer)
    return Untrained(data, tokenizer, model, data.collator)


@pytest.fixture(scope="session")
def stage3_run(tmp_path_factory, cache) -> Path:
    """Run folder of stage 3, trained for two steps on small phantoms. Nobody may write into it."""
    # It loads Lightning, which most tests do without.
    from cmrvlm.stages.training import train

    folder = tmp_path_factory.mktemp("stage3") / "run"
    overrides = [
        "+experiment=stage3",
        "+debug=fast",
        f"paths.cache={cache}",
        f"out={folder}",
        f"run_dir={folder}",
    ]
    assert train(composed(*overrides), folder) is not None
    return folder
