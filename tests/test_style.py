"""Counts of what makes code hard to read, over the packages that users and newcomers read."""

import ast

import pytest

from tests.conftest import ROOT
from tests.test_layers import modules

READ = [path for path in modules() if path.relative_to(ROOT).parts[0] != "experiments"]


def code_lines(text, tree):
    """Number of lines with code: no blank ones, no comments, no docstrings."""
    documented = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module) and ast.get_docstring(
            node
        ):
            documented |= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return sum(
        bool(line.strip()) and not line.strip().startswith("#") and number not in documented
        for number, line in enumerate(text.splitlines(), 1)
    )


class Counts:
    """What the packages hold.

    Attributes:
        lines: Lines with code.
        nodes: Nodes of the syntax trees.
        comments: Lines that are a comment alone.
        conditional: Conditional expressions.
        nested: Those that hold another one.
        pairs: Assignments of several values to several names.
        skips: Places that the formatter is kept from.
    """

    def __init__(self):
        self.lines = self.nodes = self.comments = 0
        self.conditional = self.nested = self.pairs = self.skips = 0
        for path in READ:
            text = path.read_text()
            tree = ast.parse(text)
            self.lines += code_lines(text, tree)
            self.comments += sum(line.strip().startswith("#") for line in text.splitlines())
            self.skips += text.count("# fmt: skip") + text.count("# fmt: off")
            for node in ast.walk(tree):
                self.add(node)

    def add(self, node):
        self.nodes += 1
        if isinstance(node, ast.IfExp):
            inner = [other for other in ast.walk(node) if isinstance(other, ast.IfExp)]
            self.conditional += 1
            self.nested += len(inner) > 1
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple):
            self.pairs += isinstance(node.targets[0], ast.Tuple)


@pytest.fixture(scope="module")
def counts():
    return Counts()


def test_a_line_holds_as_much_as_a_reader_takes_in(counts):
    assert counts.nodes / counts.lines <= 9.5


def test_conditional_expressions_are_few_and_never_nested(counts):
    assert counts.nested == 0
    assert 1000 * counts.conditional / counts.lines <= 15


def test_assignments_of_several_values_are_few(counts):
    assert 1000 * counts.pairs / counts.lines <= 4


def test_the_formatter_is_kept_from_tables_alone(counts):
    assert counts.skips <= 20


def test_comments_say_why_on_lines_of_their_own(counts):
    assert counts.comments / (counts.lines + counts.comments) >= 0.02


def test_names_of_tests_say_the_behaviour_shortly():
    long = [
        node.name
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
        and node.name.startswith("test_")
        and len(node.name) >= 70
    ]
    assert not long
