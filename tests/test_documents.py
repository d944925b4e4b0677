"""What README.md, docs/ and the experiments say: commands and overrides compose, links lead somewhere."""

import ast
import importlib
import inspect
import re
import shlex
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

from tests.conftest import ROOT, composed

README = ROOT / "README.md"
GUIDES = [README, *sorted((ROOT / "docs").glob("*.md"))]
DOCUMENTS = [*GUIDES, *sorted((ROOT / "experiments").glob("*/README.md"))]
# The command that the overrides of a document belong to where the text names none.
COMMAND_OF = {"prediction.md": "predict", "evaluation.md": "evaluate"}
REQUIRED = {
    "train": [],
    "predict": ["run=here", "study=here"],
    "evaluate": ["run=here"],
    "check": [],
    "cache": [],
}
# What else an override needs: the stage that it is about, or a language model that has the key.
BESIDE = {
    "text_encoder=": ["+experiment=stage1"],
    "model.contrast.": ["+experiment=stage1"],
    "mix=matched": ["+experiment=stage1"],
    "optimizer=": ["+experiment=stage3", "llm=qwen3_0_6b"],
    "llm.network.gradient_checkpointing=": ["+experiment=stage3", "llm=qwen3_0_6b"],
    "llm.network.attention_implementation=": ["+experiment=stage3", "llm=qwen3_0_6b"],
    "adapter=": ["+experiment=stage3", "llm=qwen3_0_6b"],
}
# Files that the examples of docs/extending.md add.
EXAMPLES = re.findall(r'title="([\w./]+)"', (ROOT / "docs" / "extending.md").read_text())


@dataclass(frozen=True)
class Document:
    """A text with its fenced blocks apart."""

    path: Path

    def __str__(self):
        return self.path.relative_to(ROOT).as_posix()

    @cached_property
    def text(self):
        return self.path.read_text()

    @cached_property
    def prose(self):
        """The text without its blocks."""
        return re.sub(r"^```.*?^```$", "", self.text, flags=re.MULTILINE | re.DOTALL)

    @cached_property
    def shell_lines(self):
        """Lines of the bash blocks, continued ones joined, comments cut off."""
        blocks = re.findall(r"^```bash\n(.*?)^```$", self.text, re.MULTILINE | re.DOTALL)
        lines = "".join(blocks).replace("\\\n", " ").splitlines()
        return [shlex.join(shlex.split(without_comment(line))) for line in lines]


def without_comment(line):
    return re.split(r"(?:^|\s)# ?", line, maxsplit=1)[0]


def words_of(text):
    """Words of a command, with placeholders such as `<folder>` filled in."""
    return shlex.split(re.sub(r"<[^<>]+>", "folder", text))


def is_override(word):
    return bool(re.fullmatch(r"~[\w@./]+|\+{0,2}[\w@./]+=.*", word))


def compose_as_written(name, words):
    """Compose a command's overrides as they stand, with nothing added but where a training writes."""
    single = [word for word in words if word != "-m"]
    places = {"train": ["run_dir=here"]}.get(name, [])
    if name == "train" and not any(word.startswith("out=") for word in single):
        places.append("out=here")
    composed(*single, *places, name=name)


def lines_of(pattern, documents=DOCUMENTS):
    """Matching shell lines of documents."""
    for path in documents:
        document = Document(path)
        for line in document.shell_lines:
            if found := re.search(pattern, line):
                yield pytest.param(*found.groups(), id=f"{document}: {line}"[:150])


def spans_of():
    """Overrides between backticks in the guides, once for each command that they are for."""
    found = {}
    for path in GUIDES:
        for line in Document(path).prose.splitlines():
            listed = re.search(r"\(in (`\w+`(?: and `\w+`)*)\)", line)
            default = [COMMAND_OF.get(path.name, "train")]
            names = re.findall(r"`(\w+)`", listed[1]) if listed else default
            for span in re.findall(r"`([^`]+)`", line):
                words = tuple(shell_words(span))
                if words and all(is_override(word) for word in words):
                    for name in names:
                        found.setdefault((name, words), f"{path.name}: {name} {span}"[:150])
    return [pytest.param(*key, id=text) for key, text in found.items()]


def shell_words(span):
    """Words of a span, none where it is no shell text; a leading `-m` of a sweep is left out."""
    try:
        words = words_of(span)
    except ValueError:
        return []
    return words[1:] if words[:1] == ["-m"] else words


# Those of docs/extending.md need its examples: tests/test_extending.py runs them.
COMMANDS = list(
    lines_of(
        r"-m cmrvlm\.(\w+)(?: (.*))?$",
        [path for path in DOCUMENTS if path.name != "extending.md"],
    )
)
EXPERIMENTS = list(lines_of(r"python -m (experiments\.[\w.]+)"))
TARGETS = list(lines_of(r"^make (?:PYTHON=\S+ )?([\w-]+)"))
SPANS = spans_of()


def test_documents_have_commands_and_overrides():
    """Guards against a pattern that finds nothing."""
    assert len(COMMANDS) >= 20
    assert len(EXPERIMENTS) >= 12
    assert len(TARGETS) >= 2
    assert len(SPANS) >= 90


@pytest.mark.parametrize(("name", "rest"), COMMANDS)
def test_documented_command_composes_as_it_is_written(name, rest):
    if name == "compare":  # takes folders, no configuration
        assert not any(is_override(word) for word in words_of(rest))
        return
    compose_as_written(name, words_of(rest or ""))


@pytest.mark.parametrize(("name", "words"), SPANS)
def test_documented_override_composes(name, words):
    """Each by itself, beside the least that it needs."""
    if any("glob(" in word for word in words):
        return  # each experiment is composed by the tests of conf/
    needed = REQUIRED[name]
    if name == "train" and not any(word.startswith("+experiment=") for word in words):
        before = [own for start, own in BESIDE.items() if words[0].startswith(start)]
        needed = before[0] if before else ["+experiment=stage3"]
    compose_as_written(name, [*needed, *words])


def test_every_row_of_what_to_write_has_something_to_write():
    for path in GUIDES:
        tables = re.findall(
            r"^\|[^|\n]+\| write \|\n\|[-|]+\|\n((?:\|.*\n?)+)", path.read_text(), re.M
        )
        for row in "".join(tables).splitlines():
            spans = re.findall(r"`([^`]+)`", row.split(" | ", 1)[1])
            overrides = [span for span in spans if any(map(is_override, shell_words(span)))]
            assert overrides, f"{path.name}: {row}"


@pytest.mark.parametrize("module", EXPERIMENTS)
def test_documented_experiment_is_a_module(module):
    assert (ROOT / f"{module.replace('.', '/')}.py").is_file()


@pytest.mark.parametrize("target", TARGETS)
def test_documented_make_target_exists(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(Document(path)))
def test_links_of_a_document_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", Document(path).prose):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        linked = path.parent / name if name else path
        assert linked.exists(), target
        if anchor:
            assert anchor in anchors_of(linked), target


def anchors_of(path):
    """Anchors that GitHub makes of a document's headings."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(Document(path)))
def test_files_and_names_of_a_document_exist(path):
    text = Document(path).prose
    roots = "cmrvlm|data_modules|conf|tests|experiments|docs"
    for name in re.findall(rf"`((?:{roots})/[\w./-]*)`", text):
        if name not in EXAMPLES:
            assert (ROOT / name).exists(), name
    for name in re.findall(r"`((?:cmrvlm|data_modules)(?:\.\w+)+)`", text):
        module, _, attribute = name.rpartition(".")
        found = importlib.import_module(module)
        if not hasattr(found, attribute):
            importlib.import_module(name)


@pytest.mark.parametrize("name", ["README.md", "docs/prediction.md"])
def test_python_of_a_document_fits_the_object(name):
    """Imports lead somewhere, and every call fits the method that it names."""
    text = (ROOT / name).read_text()
    (block,) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    tree = ast.parse(block)
    imported = next(node for node in tree.body if isinstance(node, ast.ImportFrom))
    shown = getattr(importlib.import_module(imported.module), "CMRVLM", None)
    if shown is None:
        raise ImportError(imported.module)
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    calls = [node for node in calls if isinstance(node.func, ast.Attribute)]
    assert len(calls) >= 6
    for call in calls:
        method = getattr(shown, call.func.attr)
        bound = [] if inspect.ismethod(method) else [None]
        keywords = {word.arg: None for word in call.keywords}
        inspect.signature(method).bind(*bound, *call.args, **keywords)


def test_readme_is_short():
    assert len(README.read_text().splitlines()) <= 130


def test_architecture_names_every_room():
    text = (ROOT / "docs" / "architecture.md").read_text()
    rooms = {
        path.parent.name
        for package in ("cmrvlm", "data_modules")
        for path in (ROOT / package).glob("*/__init__.py")
    }
    rooms |= {path.stem for path in (ROOT / "cmrvlm").glob("*.py")} - {"__init__"}
    missing = [room for room in sorted(rooms) if f"`{room}`" not in text]
    assert not missing


def test_every_choice_of_a_group_is_documented():
    text = "".join(path.read_text() for path in GUIDES)
    table = (ROOT / "docs" / "configs.md").read_text()
    for group in ("encoder", "projector", "llm", "adapter", "head", "optimizer", "hardware"):
        for path in (ROOT / "conf" / group).glob("*.yaml"):
            assert f"`{path.stem}`" in table, path
    for group in ("data", "mix"):
        for path in (ROOT / "conf" / group).glob("*.yaml"):
            if path.stem == "base":  # what others inherit, no choice
                continue
            assert re.search(rf"\b{group}={path.stem}\b", text), path
