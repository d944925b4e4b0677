"""Work in processes: what is sent, how much is under way, and who ends when the parent does."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from multiprocessing.connection import Connection

import pytest

from cmrvlm.errors import CmrvlmError
from data_modules.parallel import map_in_order, map_in_processes, thread_pool
from tests.conftest import ROOT


def length_with(item, shared):
    return item + len(shared)


def kill_own_process(item, shared):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_results_come_in_order(workers):
    results = map_in_processes(length_with, range(40), "abc", workers, "workers")
    assert list(results) == [item + 3 for item in range(40)]


def test_what_is_shared_is_not_sent_with_each_item(monkeypatch):
    sent = []
    send = Connection._send_bytes

    def count(connection, data):
        sent.append(len(data))
        send(connection, data)

    monkeypatch.setattr(Connection, "_send_bytes", count)
    shared = "x" * 1_000_000
    assert len(list(map_in_processes(length_with, range(50), shared, 2, "workers"))) == 50
    assert len(sent) >= 50
    assert sum(sent) < 50_000


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_few_items_are_taken_ahead_of_results(workers):
    taken = []

    def items():
        for item in range(1000):
            taken.append(item)
            yield item

    with thread_pool(workers) as pool:
        results = map_in_order(pool, str, items(), workers)
        for number in range(10):
            assert next(results) == str(number)
            assert len(taken) <= number + 1 + 4 * workers


@pytest.mark.parametrize("error", [KeyboardInterrupt, CmrvlmError, OSError])
def test_a_pool_that_is_left_early_begins_nothing_new(error):
    begun = []

    def work(item):
        begun.append(item)
        time.sleep(0.01)

    def leave():
        with thread_pool(2) as pool:
            next(map_in_order(pool, work, range(1000), 2))
            raise error("stop")

    with pytest.raises(error):
        leave()
    assert len(begun) < 12


def test_a_worker_that_is_killed_ends_the_job_in_one_line():
    with pytest.raises(CmrvlmError, match=r"killed, perhaps because memory.*fewer workers"):
        list(map_in_processes(kill_own_process, range(4), None, 2, "check.workers"))


# A job whose workers are in the middle of something.
JOB = """
    import sys, time
    from data_modules.parallel import map_in_processes

    def work(item, shared):
        print(item, flush=True)
        time.sleep(2.0)

    list(map_in_processes(work, range(100), None, 2, "workers"))
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_their_parent(number):
    command = [sys.executable, "-c", textwrap.dedent(JOB)]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as job:
        assert job.stdout.readline()
        job.send_signal(number)
        # The workers write to the same pipe, which ends when the last of them does.
        job.communicate(timeout=10)
