"""Names that users give are printed and drawn as they are: they are no markup and no formula."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.figure import Figure
from rich.console import Console
from torch import nn

from cmrvlm.evaluation.tables import rich_table
from cmrvlm.ingest import _decision_table
from cmrvlm.models.card import parameter_table
from cmrvlm.runs.handover import Moved, moved_table
from cmrvlm.study.drawing import overlay, save

NAMES = ["[red]a[/red]", "[/red]", "a[1]", "[link=x]y", "[bold", "b\\[c]"]


def printed(table):
    console = Console(width=200, file=io.StringIO())
    console.print(table)
    return console.file.getvalue()


@pytest.mark.parametrize("name", NAMES)
def test_tables_of_scores_show_names_as_they_are(name):
    text = printed(rich_table((name, "value"), [(f"{name} row", "1")], f"{name} title"))
    assert f"{name} title" in text
    assert f"{name} row" in text
    assert text.count(name) == 3


@pytest.mark.parametrize("name", NAMES)
def test_the_table_of_an_intake_shows_names_as_they_are(name):
    decision = {
        "sequence": "sax",
        "ambiguous": False,
        "slices": 1,
        "phases": 2,
        "reasons": [name],
        "notes": [],
    }
    study = SimpleNamespace(
        study_id=name, decisions=[decision], problem=f"{name} broke", doubts=[f"{name}?"]
    )
    text = printed(_decision_table([study]))
    assert text.count(name) == 6


@pytest.mark.parametrize("name", NAMES)
def test_tables_of_parts_show_names_as_they_are(name):
    assert name in printed(moved_table([Moved(name, "moved", 3)]))
    part = name.replace(".", "")
    model = nn.Module()
    model.add_module(part, nn.Linear(2, 2))
    assert part in printed(parameter_table(model))


@pytest.mark.parametrize("name", [r"$\frac$", "a$b$c", "$", *NAMES])
def test_pictures_show_names_as_they_are(tmp_path, name):
    figure = Figure()
    axis = figure.subplots()
    overlay(axis, np.eye(8), {}, name)
    save(figure, tmp_path / "a.png")
    assert axis.get_title() == name
    assert (tmp_path / "a.png").is_file()
