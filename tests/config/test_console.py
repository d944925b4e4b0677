"""Tables without rows, and which messages of libraries are silenced."""

import importlib
import inspect
import io
import warnings

import pytest
from rich.console import Console
from rich.table import Table

from cmrvlm.config.console import SILENCED, print_table, silence_libraries


def printed(table):
    file = io.StringIO()
    print_table(table, Console(file=file, width=80))
    return file.getvalue()


@pytest.mark.parametrize(
    ("title", "text"),
    [("3 studies: pass", "3 studies: pass"), ("0 entries in /cache", "0 entries in /cache"), (r"\[red] set", "[red] set")],
)  # fmt: skip
def test_a_table_without_rows_is_its_title(title, text):
    assert printed(Table("level", "what", title=title)) == f"{text}\n"


def test_a_table_with_rows_is_printed_whole():
    table = Table("level", "what", title="1 study")
    table.add_row("error", "no mask")
    assert all(word in printed(table) for word in ("1 study", "level", "what", "error", "no mask"))


def test_lightning_does_not_warn_of_what_it_does_itself():
    from lightning.pytorch.utilities import _pytree

    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        _pytree._tree_flatten([1, 2])
        assert [warning.category for warning in shown] == [FutureWarning]
        silence_libraries()
        _pytree._tree_flatten([1, 2])
    assert len(shown) == 1


@pytest.mark.parametrize("index", range(len(SILENCED)))
def test_what_is_silenced_is_said_by_that_library(index):
    # Else a new release says it in other words, and the entry is of no use.
    message, _, module = SILENCED[index]
    if "_pytree" in module:
        module = r"torch\.utils\._pytree"
    source = inspect.getsource(importlib.import_module(module.replace("\\", "")))
    assert message.replace("\\", "").split(".*")[0] in source


@pytest.mark.parametrize(
    ("message", "category", "module"),
    [
        ("`isinstance(treespec, LeafSpec)` is deprecated", FutureWarning, "my_code"),
        ("this will change", FutureWarning, "lightning.pytorch.utilities._pytree"),
        ("the loss is not logged", UserWarning, "lightning.pytorch.trainer.trainer"),
        ("look at this", UserWarning, "my_code"),
        ("division by zero", RuntimeWarning, "cmrvlm.metrics.statistic"),
    ],
)
def test_all_other_warnings_remain(message, category, module):
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        silence_libraries()
        warnings.warn_explicit(message, category, "file.py", 1, module=module)
    assert [str(warning.message) for warning in shown] == [message]
