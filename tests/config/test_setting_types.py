"""A setting of the wrong kind is refused by its key before anything is built."""

import pytest

from cmrvlm.config.build import build
from cmrvlm.config.setting_types import check_setting_types
from cmrvlm.errors import CmrvlmError
from tests.conftest import composed

PLACED = ("run_dir=here", "out=here", "paths.cache=here")


@pytest.mark.parametrize(
    ("override", "section", "kind"),
    [
        ("data.allowed_failures=few", "data", "a whole number"),
        ("data.batch_size=2.5", "data", "a whole number"),
        ("data.seed=true", "data", "a whole number"),
        ("data.source.count=many", "data", "a whole number"),
        ("data.source.third_axis=q", "data", "'z' or 't' or null"),
        ("mix.per_study=[1]", "mix", "a whole number"),
        ("mix.foreign_share=half", "mix", "a number"),
        ("llm.network.hidden_size=wide", "llm.network", "a whole number"),
    ],
)
def test_a_setting_of_the_wrong_kind_is_named(override, section, kind):
    more = ("data=nifti", "data.root=here") if "third_axis" in override else ("data=phantom",)
    config = composed("+experiment=stage3", *PLACED, *more, override)
    tree = config
    for key in section.split("."):
        tree = tree[key]
    with pytest.raises(CmrvlmError, match="is not") as refused:
        build(tree, section)
    assert refused.value.field.rpartition(".")[2] == override.partition("=")[0].rpartition(".")[2]
    assert kind in refused.value.problem


def takes(whole: int, part: float | None, name: str, choice: "int | list[int]" = 1) -> None:
    """Stand for a class of the project."""


takes.__module__ = "cmrvlm.tests"


@pytest.mark.parametrize(
    "settings",
    [
        {"whole": 3, "part": 3, "name": "x"},
        {"whole": -1, "part": None, "name": ""},
        {"whole": 0, "part": 0.5, "name": "1", "choice": "anything"},
        {"other": object()},
    ],
)
def test_values_that_fit_and_parameters_of_other_kinds_pass(settings):
    check_setting_types(takes, settings, "here")


@pytest.mark.parametrize(
    ("name", "value"),
    [("whole", 1.0), ("whole", None), ("whole", False), ("part", "1"), ("part", True), ("name", 1)],
)
def test_flags_are_no_numbers_and_texts_none_either(name, value):
    with pytest.raises(CmrvlmError, match="is not") as refused:
        check_setting_types(takes, {name: value}, "here")
    assert refused.value.field == f"here.{name}"
