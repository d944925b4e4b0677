"""Every dependency is declared, and every declared dependency is needed."""

import ast
import re
import sys
import tomllib
from dataclasses import dataclass
from importlib.metadata import packages_distributions

import pytest

from tests.conftest import ROOT
from tests.test_layers import PACKAGES, imported, imported_by, modules

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@dataclass(frozen=True)
class Indirect:
    """Why a dependency that no module imports is needed.

    Attributes:
        reason: What needs it.
        file: File of the project that leads to it.
        text: Text of that file, which goes when the need goes.
    """

    reason: str
    file: str
    text: str


INDIRECT = {
    "scikit-image": Indirect(
        "MONAI finds connected parts by it",
        "cmrvlm/inference/mask_reading.py",
        "KeepLargestConnectedComponent",
    ),
    "tensorboard": Indirect(
        "Lightning's logger writes by it", "conf/logger/tensorboard.yaml", "TensorBoardLogger"
    ),
    "bitsandbytes": Indirect(
        "Transformers quantizes language models by it, and a config takes its optimizer",
        "conf/optimizer/paged_adamw_8bit.yaml",
        "bitsandbytes.optim",
    ),
    "litdata": Indirect(
        "it is imported by name, and only where shards are used",
        "data_modules/storage/shards.py",
        '"litdata.streaming"',
    ),
    "hydra-joblib-launcher": Indirect(
        "Hydra finds it as a plugin", "conf/sweep/joblib.yaml", "/hydra/launcher: joblib"
    ),
    "hydra-submitit-launcher": Indirect(
        "Hydra finds it as a plugin", "conf/sweep/submitit.yaml", "/hydra/launcher: submitit"
    ),
    "hydra-optuna-sweeper": Indirect(
        "Hydra finds it as a plugin", "conf/sweep/optuna.yaml", "/hydra/sweeper: optuna"
    ),
    "optuna": Indirect(
        "the sweeper needs an older release", "conf/sweep/optuna.yaml", "/hydra/sweeper: optuna"
    ),
    "sqlalchemy": Indirect(
        "that release of Optuna needs an older one",
        "conf/sweep/optuna.yaml",
        "/hydra/sweeper: optuna",
    ),
    "pytest-cov": Indirect("`make test` measures coverage", "Makefile", "--cov-fail-under"),
    "pytest-xdist": Indirect("`make test` runs two processes", "Makefile", "--dist worksteal"),
    "ruff": Indirect("`make lint` calls it", "Makefile", "ruff check"),
    "mypy": Indirect("`make type` calls it", "Makefile", "mypy"),
    "pre-commit": Indirect("developers call it", ".pre-commit-config.yaml", "repos:"),
    "types-pyyaml": Indirect("mypy reads it", "cmrvlm/runs/run_folder.py", "import yaml"),
}


def name_of(requirement):
    """`hydra-core` for `hydra-core>=1.3.8,<1.4`."""
    return re.split(r"[<>=!~ \[]", requirement)[0].lower().replace("_", "-")


NEEDED = {name_of(one) for one in PROJECT["dependencies"]}
GROUPS = {
    group: {name_of(one) for one in requirements}
    for group, requirements in PROJECT["optional-dependencies"].items()
}
EXTRAS = set().union(*GROUPS.values())
# What users can install must be used by the packages; tests alone are no reason.
FOR_DEVELOPERS = GROUPS["dev"] - set().union(*(GROUPS[group] for group in GROUPS.keys() - {"dev"}))


@pytest.fixture(scope="module")
def distributions():
    """Importable package to the names of the distributions that bring it."""
    return {
        package: {name.lower().replace("_", "-") for name in names}
        for package, names in packages_distributions().items()
    }


@pytest.fixture(scope="module")
def importers(distributions):
    """Distribution to the files that import it."""
    found = {}
    tests = sorted((ROOT / "tests").rglob("*.py"))
    for path in [*modules(), *tests]:
        for package in imported(path):
            for name in distributions.get(package, ()):
                found.setdefault(name, set()).add(path.relative_to(ROOT).as_posix())
    return found


@pytest.mark.parametrize("name", sorted(NEEDED | EXTRAS))
def test_declared_dependency_is_needed(name, importers):
    """A module imports it, or the table says why it is needed all the same, never both."""
    files = importers.get(name, set())
    if name not in FOR_DEVELOPERS:
        files = {file for file in files if file.split("/")[0] in PACKAGES}
    if name not in INDIRECT:
        assert files, f"nothing imports {name}: take it out of pyproject.toml or say why it stays"
        return
    indirect = INDIRECT[name]
    assert not files, f"{sorted(files)[0]} imports {name}: take it out of INDIRECT"
    assert indirect.text in (ROOT / indirect.file).read_text(), f"{name}: {indirect.reason}?"


def test_tables_of_reasons_name_only_what_is_declared():
    assert INDIRECT.keys() <= NEEDED | EXTRAS


def test_every_extra_is_installed_where_tests_run():
    """`make install` brings the extras `dev` and `sweep`."""
    assert GROUPS["dev"] | GROUPS["sweep"] == EXTRAS


def test_every_library_that_is_imported_is_declared(distributions):
    """A metric that needs a library which no one declared fails after hours of training.

    What a module imports must be a dependency; what a function imports may be an extra, whose lack
    it explains.
    """
    for path in modules():
        top_level = ast.parse(path.read_text()).body
        at_once = {name for node in top_level for name in imported_by([node])}
        for name in imported(path) - set(PACKAGES) - set(sys.stdlib_module_names):
            declared = NEEDED if name in at_once else NEEDED | EXTRAS
            assert distributions[name] & declared, f"{path}: {name}"
