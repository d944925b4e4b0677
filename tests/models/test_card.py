"""The sizes of the parts of a model add up to its size."""

import pytest
from rich.console import Console

from cmrvlm.models.card import parameter_table, part_sizes


@pytest.fixture
def model(untrained):
    return untrained.model


@pytest.fixture
def model_with_frozen_encoder(model):
    model.encoders.sax.requires_grad_(False)
    yield model
    model.encoders.sax.requires_grad_(True)


def test_part_sizes_add_up_to_the_model(model):
    sizes = part_sizes(model)
    expected = sum(parameter.numel() for parameter in model.parameters())
    assert sum(size.total for size in sizes) == expected
    names = {size.name for size in sizes}
    assert {"encoders.sax", "projectors.lge", "mask_head.sax", "llm", "read_out"} <= names


def test_frozen_parts_have_nothing_that_is_trained(model_with_frozen_encoder):
    sizes = {size.name: size for size in part_sizes(model_with_frozen_encoder)}
    assert sizes["encoders.sax"].trained == 0
    assert sizes["encoders.sax"].total > 0


def test_parameter_table_shows_the_total(model):
    console = Console(width=100)
    with console.capture() as captured:
        console.print(parameter_table(model))
    total = sum(size.total for size in part_sizes(model))
    assert f"{total:,}" in captured.get()
