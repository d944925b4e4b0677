"""Settings that nothing reads, and values that are missing, are one clear error."""

import re

import pytest

from tests.test_entry_points import python


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (
            ("predict", "run=.", "out={out}", "study=s", "+frams=ed_es"),
            r"field 'frams'.*Is it frames\?",
        ),
        (("check", "+foo=1", "out={out}"), r"field 'foo': the command has no such setting"),
        (("train", "+optimzer.lr=1", "out={out}"), r"field 'optimzer'.*Is it optimizer\?"),
        (("ingest", "source=archive"), r"field 'out': a value is missing"),
        (("evaluate",), r"field 'out': a value is missing.*run"),
        (("predict", "run=nowhere", "study=s"), r"there is no run here"),
        (("train", "+debug=fast", "stage.init_from=nowhere", "out={out}"), r"there is no run here"),
    ],
    ids=lambda value: "-".join(value)[:40] if isinstance(value, tuple) else "",
)
def test_a_command_says_what_is_wrong_with_its_settings(command, said, tmp_path):
    name, *overrides = [text.format(out=tmp_path / "out") for text in command]
    ended = python(f"cmrvlm.{name}", *overrides, cwd=tmp_path)
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr + ended.stdout
    # What did not begin leaves nothing, but for the folder that was asked for.
    assert {path.name for path in tmp_path.iterdir()} <= {"out"}
    assert re.search(said, ended.stderr.replace("\n", " "))
