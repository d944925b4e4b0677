"""Check real data sets: keep what is found, how long it takes, and the page as a picture.

    python -m experiments.check.run acdc=<ACDC training folder> emidec=<EMIDEC folder>

Writes `metrics.json` here, and `acdc.png` and `emidec.png` where Chromium is installed.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from experiments.commands import CONSOLE, given

HERE = Path(__file__).parent
# Width and height of the picture.
PAGE_PIXELS = "1220,1500"


def picture(page: Path, path: Path) -> None:
    """Draw the top of a page with Chromium.

    Args:
        page: HTML file.
        path: Picture to write; without Chromium nothing is written.
    """
    browser = (
        shutil.which("chromium")
        or shutil.which("chromium-browser")
        or shutil.which("google-chrome")
    )
    if browser is None:
        CONSOLE.print(f"{path.name} is not drawn: there is no Chromium")
        return
    subprocess.run(
        [
            browser,
            "--headless",
            "--no-sandbox",
            "--hide-scrollbars",
            f"--window-size={PAGE_PIXELS}",
            f"--screenshot={path}",
            page.resolve().as_uri(),
        ],
        check=True,
        capture_output=True,
    )


def main() -> None:
    """Check both sets, and keep numbers and pictures."""
    settings = given({"acdc": "", "emidec": ""})
    content: dict[str, Any] = {}
    for name, root in settings.items():
        if not root:
            sys.exit(f"{name}=<folder> is missing")
        with tempfile.TemporaryDirectory() as out:
            started = time.monotonic()
            command = [
                sys.executable,
                "-W",
                "ignore",
                "-m",
                "cmrvlm.check",
                f"data={name}",
                f"data.root={root}",
                f"out={out}",
            ]
            done = subprocess.run(command, check=False)
            seconds = time.monotonic() - started
            report = json.loads((Path(out) / "check.json").read_text())
            faults = Counter(f"{fault['level']}: {fault['code']}" for fault in report["faults"])
            content[name] = {
                "seconds": round(seconds, 1),
                "status": done.returncode,
                "studies": report["studies"],
                "verdict": report["verdict"],
                "faults": dict(faults),
            }
            picture(Path(out) / "check.html", HERE / f"{name}.png")
    (HERE / "metrics.json").write_text(json.dumps(content, indent=1))
    CONSOLE.print(content, markup=False)


if __name__ == "__main__":
    main()
