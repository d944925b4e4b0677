"""The check of an archive: what is repeated, who may write, and how large its result grows."""

import json
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from multiprocessing.connection import Connection

import numpy as np
import pytest

import data_modules.checking.page
import data_modules.checking.run
from cmrvlm.errors import CmrvlmError
from data_modules.checking.faults import ERROR, WARNING, Fault
from data_modules.checking.page import write_page
from data_modules.checking.run import CheckRun
from data_modules.checking.thumbnails import same_images
from data_modules.sources.phantom.source import PhantomSource
from data_modules.storage.in_use import exclusive
from tests.conftest import ROOT
from tests.data_modules.conftest import TINY


class LargeSource(PhantomSource):
    """Phantoms whose source is as large as a table with the reports of an archive."""

    def __init__(self):
        super().__init__(count=24, **TINY)
        self._reports = "x" * 3_000_000


class FaultySource(PhantomSource):
    """Phantoms of which one raises an error that no code expects."""

    def load(self, study_id):
        if study_id.endswith("3"):
            raise ZeroDivisionError("/archive/Miller")
        return super().load(study_id)


def test_the_source_is_not_sent_with_each_study(tmp_path, monkeypatch):
    sent = []
    send = Connection._send_bytes

    def count(connection, data):
        sent.append(len(data))
        send(connection, data)

    monkeypatch.setattr(Connection, "_send_bytes", count)
    assert len(list(CheckRun(LargeSource(), tmp_path, workers=2).run())) == 24
    assert sum(sent) < 100_000


@pytest.mark.parametrize("workers", [1, 2])
def test_nothing_is_loaded_or_hashed_again_for_a_study(tmp_path, monkeypatch, tiny_source, workers):
    first = list(CheckRun(tiny_source(), tmp_path, workers=workers).run())
    digests = []
    digest = data_modules.checking.run.code_digest
    monkeypatch.setattr(
        data_modules.checking.run, "code_digest", lambda names: digests.append(1) or digest(names)
    )
    monkeypatch.setattr(PhantomSource, "load", None)
    assert list(CheckRun(tiny_source(), tmp_path, workers=workers).run()) == first
    assert digests == [1]


def test_only_pictures_that_are_shown_are_drawn_and_drawn_once(tmp_path, monkeypatch, tiny_source):
    monkeypatch.setattr(data_modules.checking.run, "MOST_PICTURES", 2)
    run = CheckRun(tiny_source(), tmp_path, workers=1)
    drawn = []
    draw = data_modules.checking.run.montage
    monkeypatch.setattr(
        data_modules.checking.run, "montage", lambda study: drawn.append(study) or draw(study)
    )
    for _ in range(2):
        checked = [replace(study, faults=[]) for study in run.run()]
        checked[4] = replace(checked[4], faults=[Fault(WARNING, "x", checked[4].study, "x")])
        run.finish(checked, None, "two pictures")
    assert [study.study_id for study in drawn] == [checked[4].study, checked[0].study]
    assert (tmp_path / "check.html").read_text().count("<figure>") == 2


def test_a_study_with_an_unexpected_fault_is_named_and_the_others_checked(tmp_path):
    run = CheckRun(FaultySource(count=6, **TINY), tmp_path, workers=2)
    checked = list(run.run())
    assert len(checked) == 6
    (fault,) = [fault for fault in checked[3].faults if fault.level == ERROR]
    assert fault.text == "it cannot be read (ZeroDivisionError)"
    assert run.finish(checked, None, "faulty")["errors"] == 1


@pytest.mark.parametrize("copies", [2, 30, 3000])
def test_copies_of_an_image_give_a_pair_each_and_not_their_square(copies):
    rng = np.random.default_rng(0)
    images = rng.choice([-1.0, 1.0], size=(3, 512)).astype(np.float16)
    thumbnails = [images[0], images[1], np.zeros(512, np.float16)]
    thumbnails += [images[2]] * copies + [images[1]]
    pairs = same_images(thumbnails)
    assert pairs == [*((3, later) for later in range(4, 3 + copies)), (1, 3 + copies)]


@pytest.mark.parametrize("count", [3, 4, 5000])
def test_a_page_lists_a_bounded_number_of_faults(tmp_path, monkeypatch, count):
    monkeypatch.setattr(data_modules.checking.page, "_MOST_FAULTS", 3)
    faults = [Fault(ERROR, "x", f"study-{number}", "x") for number in range(count)]
    write_page(tmp_path / "check.html", "title", count, faults, {}, {})
    page = (tmp_path / "check.html").read_text()
    assert page.count("study-") == 3
    assert (f"and {count - 3} more, which are in check.json" in page) == (count > 3)


@pytest.mark.parametrize(
    ("counts", "tables"), [({}, 0), ({"lge": 0, "sax": 0}, 0), ({"lge": 0, "sax": 3}, 1)]
)
def test_a_page_has_no_table_of_what_no_study_has(tmp_path, counts, tables):
    write_page(tmp_path / "check.html", "title", 3, [], {"sequences": counts}, {})
    page = (tmp_path / "check.html").read_text()
    assert page.count("<table>") == tables
    assert ("none: lge" in page) == ("lge" in counts)


def test_two_checks_do_not_write_into_one_folder(tmp_path, monkeypatch, tiny_source):
    monkeypatch.setattr("data_modules.storage.in_use._SECONDS_TO_WAIT", 0.1)
    run = CheckRun(tiny_source(), tmp_path, workers=1)
    with exclusive(tmp_path, "out"), pytest.raises(CmrvlmError, match="another job writes"):
        next(run.run())
    half = tmp_path / "studies" / ".x.json.1.part"
    half.parent.mkdir()
    half.touch()
    assert len(list(run.run())) == 6
    assert not half.exists()


# A check whose studies take long.
SLOW_CHECK = """
    import sys, time
    from pathlib import Path
    from data_modules.checking.run import CheckRun
    from data_modules.sources.phantom.source import PhantomSource

    class Slow(PhantomSource):
        def load(self, study_id):
            print("loading", flush=True)
            time.sleep(0.5)
            return super().load(study_id)

    source = Slow(count=20, size=32, slices=2, frames=3)
    print(len(list(CheckRun(source, Path(sys.argv[1]), workers=2).run())), "checked")
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_check_that_is_stopped_goes_on(tmp_path, number):
    command = [sys.executable, "-c", textwrap.dedent(SLOW_CHECK), str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as job:
        loaded = 0
        while loaded < 8:
            # Two workers may write into one line.
            line = job.stdout.readline()
            assert line
            loaded += line.count("loading")
        job.send_signal(number)
        job.communicate(timeout=10)
    again = subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=60, check=True
    )
    assert "20 checked" in again.stdout
    assert again.stdout.count("loading") < 18
    for path in (tmp_path / "studies").iterdir():
        json.loads(path.read_text())
