"""Who may import whom."""

import ast
import re
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGES = ("cmrvlm", "data_modules", "experiments")
ALLOWED = {
    "cmrvlm": {"cmrvlm"},
    "data_modules": {"cmrvlm", "data_modules"},
    "experiments": set(PACKAGES),
}
# Lightning and Hydra are known to the entry points and the stages alone; `instantiate` is their door to the rest.
FRAMEWORK = {"lightning", "hydra", "omegaconf"}
KNOWS_FRAMEWORK = {
    "cmrvlm/train.py",
    "cmrvlm/evaluate.py",
    "cmrvlm/predict.py",
    "cmrvlm/config/command.py",
    "cmrvlm/config/build.py",
    "cmrvlm/check.py",
    "cmrvlm/ingest.py",
    "cmrvlm/shard.py",
    "cmrvlm/export.py",
}


def modules():
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def imported(path: Path) -> set[str]:
    return imported_by(ast.walk(ast.parse(path.read_text())))


def imported_by(nodes) -> set[str]:
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_downwards(path):
    relative = path.relative_to(ROOT)
    names = imported(path)
    assert names & set(PACKAGES) <= ALLOWED[relative.parts[0]]
    assert not names & {"conf", "tests"}
    if (
        relative.parts[0] == "cmrvlm"
        and relative.parts[1] not in ("stages", "runs")
        and relative.as_posix() not in KNOWS_FRAMEWORK
    ):
        assert not names & FRAMEWORK


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_sizes_stay_readable(path):
    text = path.read_text()
    assert text.count("\n") <= 350
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno < 60, node.name
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None
            assert getattr(node.type, "id", "") not in {"Exception", "BaseException"}


def test_yaml_stays_short():
    long = [
        path.name for path in (ROOT / "conf").rglob("*.yaml") if path.read_text().count("\n") > 45
    ]
    assert long == ["train.yaml"] or not long


def test_no_paths_and_devices_of_one_machine_in_sources():
    for path in [*modules(), *(ROOT / "conf").rglob("*.yaml")]:
        text = path.read_text()
        assert "/home/" not in text
        assert "cuda:" not in text
        assert "weights_only=False" not in text
        assert "trust_remote_code=True" not in text


def test_nothing_is_bound_to_one_machine():
    """No path of somebody's home and no number of a GPU in code, configs or documents."""
    files = [
        path
        for pattern in (
            "cmrvlm/**/*.py",
            "data_modules/**/*.py",
            "experiments/**/*.py",
            "conf/**/*.yaml",
            "**/README.md",
            "docs/*.md",
            "Makefile",
        )
        for path in ROOT.glob(pattern)
    ]
    bound = [
        str(path)
        for path in files
        if ".venv" not in path.parts and re.search(r"/home/|cuda:\d", path.read_text())
    ]
    assert len(files) > 150
    assert not bound
