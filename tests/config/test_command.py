"""Commands that a signal ends say so in one line and leave no temporary files."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

CODE = """
import os, signal, sys, tempfile, time
from cmrvlm.config.command import exit_on_error
with exit_on_error(), tempfile.TemporaryDirectory() as folder:
    print(folder, flush=True)
    os.kill(os.getpid(), int(sys.argv[1]))
    time.sleep(10)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_command_and_its_temporary_files(number):
    ended = subprocess.run(
        [sys.executable, "-c", CODE, str(int(number))],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=60,
    )
    assert ended.returncode == 128 + number
    assert ended.stderr.strip() == "error: interrupted. Give the same command once more."
    assert not Path(ended.stdout.strip()).exists()
