"""The parts of a model add up to it."""

from rich.console import Console

from cmrvlm.models.card import parameter_table, part_sizes


def test_parts_add_up_and_say_what_is_trained(parts):
    model = parts[2]
    rows = part_sizes(model)
    assert sum(one.total for one in rows) == sum(p.numel() for p in model.parameters())
    assert {"encoders.sax", "projectors.lge", "mask_head.sax", "llm", "read_out"} <= {
        one.name for one in rows
    }
    model.encoders.sax.requires_grad_(False)
    try:
        frozen = {one.name: one for one in part_sizes(model)}["encoders.sax"]
    finally:
        model.encoders.sax.requires_grad_(True)
    assert (frozen.trained, frozen.total > 0) == (0, True)
    console = Console(width=100)
    with console.capture() as captured:
        console.print(parameter_table(model))
    assert f"{sum(one.total for one in rows):,}" in captured.get()
