"""Text of others on a terminal and in a log: it moves no cursor, has no colour and makes no line of its own."""

import io
import json
import logging
import logging.config
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import yaml
from rich.table import Table

import cmrvlm.cache
from cmrvlm.check import _print_faults, check
from cmrvlm.config.command import exit_on_error
from cmrvlm.config.terminal import LineFormatter, PlainConsole, one_line, visible
from cmrvlm.errors import CmrvlmError
from cmrvlm.evaluation.tables import rich_table
from cmrvlm.ingest import _decision_table
from cmrvlm.stages.callbacks.sweep_table import JOBS, sweep_table
from cmrvlm.study.files import write_nifti
from data_modules.dicom.ingest_study import Ingested
from tests.conftest import CONF, composed

TEXTS = {
    "clears the screen": "a\x1b[2Jb",
    "moves the cursor": "a\x1b[1;1Hb",
    "is red": "a\x1b[31mb",
    "sets the title": "a\x1b]0;mine\x07b",
    "sets the clipboard": "a\x1b]52;c;cm0gLXJm\x07b",
    "is a link": "a\x1b]8;;file:///etc/passwd\x1b\\b",
    "asks the terminal": "a\x1b[6n\x1b[cb",
    "acts by one byte": "a\x9b2Jb",
    "rings": "a\x07b",
    "goes back": "ab\x08\x08\x08pass",
    "begins the line anew": "a\rpass",
    "is deleted": "a\x7fb",
    "ends a text": "a\0b",
    "turns the line around": "a\u202egnp.exe",
    "turns a part around": "a\u2067b\u2069",
    "ends by a line separator": "a\u2028b",
    "ends by a next line": "a\x85b",
    "is half a pair": "a\udcffb",
    "is markup": "[red]a[/red]",
    "closes markup": "a[/]b[/bold]",
    "links by markup": "[link=file:///etc/passwd]a[/link]",
    "is a picture by name": "a:bomb:b",
}


def acts(text: str) -> bool:
    """Whether a text has a character that acts, told by the tables of Unicode."""
    for letter in text:
        if letter in "\n\t":
            continue
        hidden = unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp")
        if hidden or unicodedata.bidirectional(letter) in _TURNS:
            return True
    return False


_TURNS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


@pytest.fixture
def console():
    """A console that takes itself for a terminal without colours."""
    return PlainConsole(
        width=400, file=io.StringIO(), force_terminal=True, no_color=True, highlight=False
    )


def printed(console: PlainConsole) -> str:
    """What was printed, without the sequences of our own styles."""
    text = console.file.getvalue()
    for own in ("\x1b[0m", "\x1b[1m", "\x1b[3m", "\x1b[2m", "\x1b[1;3m", "\x1b[2;3m"):
        text = text.replace(own, "")
    text.encode("utf-8")
    return text


def by_table(console, text):
    console.print(rich_table((text, "value"), [(text, "1")], text))


def by_intake(console, text):
    decision = {
        "sequence": "sax",
        "ambiguous": False,
        "slices": 1,
        "phases": 2,
        "reasons": [text],
        "notes": [],
    }
    console.print(_decision_table([Ingested(text, None, [decision], text, (text,))]))


def by_check(console, text):
    fault = {"level": "error", "code": text, "study": text, "text": text}
    _print_faults({"studies": 1, "verdict": "errors", "faults": [fault]}, console)


def by_plain_print(console, text):
    console.print(f"failed: {text}: {text}", markup=False)


def by_cells(console, text):
    table = Table("a")
    table.add_row(text.replace("[", "\\["))
    console.print(table)


SINKS = (by_table, by_intake, by_check, by_plain_print, by_cells)


@pytest.mark.parametrize("sink", SINKS)
@pytest.mark.parametrize("name", TEXTS)
def test_no_text_acts_on_a_terminal(console, sink, name):
    sink(console, TEXTS[name])
    assert not acts(printed(console))
    assert visible(TEXTS[name]) in printed(console).replace("\\[", "[")


@pytest.mark.parametrize("name", TEXTS)
def test_no_text_acts_in_an_error(capsys, name):
    text = TEXTS[name]
    with pytest.raises(SystemExit), exit_on_error():
        raise CmrvlmError(f"{text} is wrong\nerror: all is well", file=f"x/{text}", field=text)
    told = capsys.readouterr().err
    assert not acts(told)
    assert told.count("\n") == 1
    assert told.count(one_line(text)) == 3


@pytest.fixture
def log(tmp_path):
    """A logger as every command has it, by what its configuration says of the format, and its file."""
    settings = yaml.safe_load((CONF / "command" / "default.yaml").read_text())
    formatter = settings["hydra"]["job_logging"]["formatters"]["simple"]
    path = tmp_path / "x.log"
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"simple": {"format": "[%(levelname)s] - %(message)s", **formatter}},
            "handlers": {
                "file": {"class": "logging.FileHandler", "formatter": "simple", "filename": path}
            },
            "loggers": {"doors": {"level": "INFO", "handlers": ["file"], "propagate": False}},
        }
    )
    (handler,) = logging.getLogger("doors").handlers
    logging.getLogger("doors").removeHandler(handler)
    # A logger that nobody finds: reports of tests that hold half a pair cannot be sent.
    logger = logging.Logger("doors")
    logger.addHandler(handler)
    yield logger, path
    handler.close()


@pytest.mark.parametrize("name", TEXTS)
def test_no_text_acts_in_a_log_or_makes_a_line_of_it(log, name):
    logger, path = log
    text = f"{TEXTS[name]}\n[INFO] - all studies are well"
    logger.warning("study %s is damaged", text)
    logger.warning(f"study {text} is damaged")
    told = path.read_text()
    assert not acts(told)
    assert told.count("\n") == 2
    assert told.count("[WARNING] - study") == 2
    assert one_line(text) in told


def test_a_traceback_in_a_log_keeps_its_lines_and_acts_as_little(log):
    logger, path = log
    try:
        raise ValueError("a\x1b[2Jb")
    except ValueError:
        logger.exception("it broke")
    told = path.read_text()
    assert told.count("\n") > 3
    assert not acts(told)


@pytest.mark.parametrize("text", ["Straße 心脏 σφ", "a\tb", "👩‍⚕️", "é", "a\nb", "\\x1b"])
def test_ordinary_text_stays_as_it_is(text):
    assert visible(text) == text
    assert isinstance(LineFormatter(), logging.Formatter)


@pytest.mark.parametrize("name", TEXTS)
def test_overrides_of_a_sweep_do_not_act(console, tmp_path, name):
    (tmp_path / JOBS).mkdir()
    record = {"job": 0, "overrides": [f"a={TEXTS[name]}"], "status": "failed", "metric": None}
    (tmp_path / JOBS / "0.json").write_text(json.dumps(record | {"error": TEXTS[name]}))
    console.print(sweep_table(tmp_path))
    assert not acts(printed(console))


def write_folders(root: Path, names: list[str]) -> None:
    image = np.random.default_rng(0).normal(size=(3, 2, 8, 8)).astype(np.float32)
    for name in names:
        (root / name).mkdir(parents=True)
        write_nifti(root / name / "sax.nii.gz", image, np.diag([8.0, 8.0, 8.0, 1.0]))


@pytest.mark.parametrize("name", [name for name, text in TEXTS.items() if "/" not in text])
def test_a_folder_with_such_a_name_is_checked_or_named(tmp_path, name):
    """Each name goes through the whole command: table, page and record."""
    console = PlainConsole(width=400, file=io.StringIO())
    if "\0" in TEXTS[name]:
        return
    write_folders(tmp_path / "root", [TEXTS[name]])
    overrides = ["data=nifti", f"data.root={tmp_path / 'root'}", "check.workers=1"]
    config = composed(*overrides, f"out={tmp_path / 'out'}", name="check")
    if set(TEXTS[name]) & {"\x1b", "\x07", "\x08", "\x7f", "\udcff"}:
        with pytest.raises(CmrvlmError, match="control character"):
            check(config, console)
        return
    assert check(config, console)["studies"] == 1
    assert not acts(printed(console))
    assert (tmp_path / "out" / "check.html").is_file()
    assert {path.name for path in tmp_path.iterdir()} == {"root", "out"}


@pytest.mark.parametrize("name", ["clears the screen", "turns the line around", "is markup"])
def test_the_list_of_a_cache_shows_names_that_act(console, tmp_path, name):
    entry = tmp_path / "0123456789abcdef"
    entry.mkdir()
    record = {
        "source": TEXTS[name],
        "settings": {"root": TEXTS[name], "path": TEXTS[name]},
        "preprocessing": {"steps": {TEXTS[name]: {}}},
        "modules": [],
        "code": TEXTS[name],
        "format": "2",
    }
    (entry / "entry.json").write_text(json.dumps(record))
    cmrvlm.cache.cache(composed(f"paths.cache={tmp_path}", name="cache"), console)
    assert not acts(printed(console))
