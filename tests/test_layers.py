"""The order in which packages and rooms may import each other, without circles."""

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGES = ("cmrvlm", "data_modules", "experiments")
ALLOWED = {
    "cmrvlm": {"cmrvlm"},
    "data_modules": {"cmrvlm", "data_modules"},
    "experiments": set(PACKAGES),
}
# Rooms of cmrvlm from the top; a room may import those of a later line, and no other of its own line.
ROOMS = (
    ("commands",),
    ("evaluation", "stages"),
    ("inference",),
    ("runs",),
    ("models",),
    ("language_model", "encoders", "losses"),
    ("tasks",),
    ("metrics",),
    ("instructions",),
    ("reports",),
    ("quantification",),
    ("transforms",),
    ("study",),
    ("config",),
    ("errors",),
)
LEVEL = {room: level for level, rooms in enumerate(ROOMS) for room in rooms}
COMMANDS = {
    "train",
    "evaluate",
    "predict",
    "compare",
    "export",
    "check",
    "ingest",
    "shard",
    "cache",
}
# Lightning and Hydra are known to commands, configuration, runs and stages alone.
FRAMEWORK = {"lightning", "hydra", "omegaconf"}
KNOWS_FRAMEWORK = {"commands", "config", "runs", "stages"}


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


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def room_of(module: str) -> str | None:
    """The room of a module of cmrvlm; None for the package itself, which only loads its object by name."""
    names = module.split(".")
    if names[0] != "cmrvlm" or len(names) == 1:
        return None
    return "commands" if names[1] in COMMANDS and len(names) == 2 else names[1]


def import_graph() -> dict[str, set[str]]:
    """Module to the modules of ours that it imports, at the top or inside functions."""
    known = {dotted(path): path for path in modules()}
    graph = {}
    for module, path in known.items():
        targets = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                targets |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                inner = {f"{node.module}.{alias.name}" for alias in node.names} & known.keys()
                targets |= inner or {node.module}
        graph[module] = (targets & known.keys()) - {module}
    return graph


@pytest.fixture(scope="module")
def graph():
    return import_graph()


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_downwards(path):
    names = imported(path)
    assert names & set(PACKAGES) <= ALLOWED[path.relative_to(ROOT).parts[0]]
    assert not names & {"conf", "tests"}
    room = room_of(dotted(path))
    if room is not None and room not in KNOWS_FRAMEWORK:
        assert not names & FRAMEWORK


def test_no_room_imports_one_above_it(graph):
    wrong = []
    for module, targets in graph.items():
        room = room_of(module)
        for target in targets:
            other = room_of(target)
            if room is None or other is None or room == other:
                continue
            if LEVEL[room] >= LEVEL[other]:
                wrong.append(f"{module} imports {target}")
    assert not wrong


def test_every_room_has_its_place_in_the_order(graph):
    rooms = {room_of(module) for module in graph} - {None}
    assert rooms == set(LEVEL)


def test_modules_import_each_other_without_a_circle(graph):
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_packages_import_each_other_without_a_circle(graph):
    def package(module):
        return ".".join(module.split(".")[:2])

    packages: dict[str, set[str]] = {}
    for module, targets in graph.items():
        others = {package(target) for target in targets} - {package(module)}
        packages.setdefault(package(module), set()).update(others)
    try:
        TopologicalSorter(packages).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_only_commands_and_errors_lie_loose_at_the_top():
    loose = {path.stem for path in (ROOT / "cmrvlm").glob("*.py")} - {"__init__"}
    assert loose == COMMANDS | {"errors"}
    assert len(loose) <= 10


# One guard each, around a file, a series or a study of an archive that others recorded.
GUARDS = (
    "dicom/scan.py",
    "dicom/stacks.py",
    "dicom/ingest_study.py",
    "checking/run.py",
    "storage/cache.py",
    # Around a measurement on a device that nobody has tried.
    "gpu/guard.py",
    # The library of tokenizers raises plain exceptions.
    "language_model/tokenizer.py",
)


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_sizes_stay_readable(path):
    text = path.read_text()
    assert text.count("\n") <= 350
    assert text.count("except Exception") <= (f"{path.parent.name}/{path.name}" in GUARDS)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno < 60, node.name
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None
            assert getattr(node.type, "id", "") != "BaseException"


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
