"""Measure ingest, check, cache and evaluation of archives, and each again with nothing to do.

    python -m experiments.archive.run [sizes=100,1000,10000] [files=20000]
        [parts=ingest,check,cache,evaluate] [folder=<of the studies>] [run=<a trained run>]

Studies are small and synthetic; see `experiments.archive.studies`. What was measured before is kept
in `metrics.json`, so that sizes and parts can be run one at a time; `evaluate` needs `run`. Writes
`metrics.json` and `table.md` here.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from experiments.archive.studies import write_dicom, write_manifest
from experiments.commands import CONSOLE, given

HERE = Path(__file__).parent
PARTS = ("ingest", "check", "cache", "evaluate")
_SECONDS_BETWEEN_LOOKS = 0.2
_MEGABYTE = 1e6


def memory_bytes(process: int) -> int:
    """Return the memory of a process and its descendants; what they share counts once."""
    total = 0
    try:
        rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:
        # It has ended by now.
        return 0
    for line in rollup.splitlines():
        if line.startswith("Pss:"):
            total = int(line.split()[1]) * 1024
    return total + sum(memory_bytes(int(child)) for child in children)


def measure(*arguments: str) -> dict[str, Any]:
    """Run a module of the project and return its seconds, peak memory and exit status."""
    CONSOLE.print(f"$ python -m {' '.join(arguments)}", style="bold", markup=False)
    started = time.monotonic()
    command = [sys.executable, "-W", "ignore", "-m", *arguments]
    # Its messages would fill the screen at this size.
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    peak = 0
    try:
        while process.poll() is None:
            peak = max(peak, memory_bytes(process.pid))
            time.sleep(_SECONDS_BETWEEN_LOOKS)
    finally:
        # Whoever stops the measurement stops what is measured.
        process.terminate()
    return {
        "seconds": round(time.monotonic() - started, 1),
        "peak_mb": round(peak / _MEGABYTE),
        "status": process.returncode,
    }


def command_of(part: str, studies: Path, out: Path, run: str) -> list[str]:
    """Return the command of a part.

    Args:
        part: One of `PARTS`.
        studies: Folder of DICOM files, or of a table with its images.
        out: Folder that the command writes into.
        run: A trained run, for `evaluate`.
    """
    table = f"data.path={studies / 'studies.csv'}"
    if part == "ingest":
        return [
            "cmrvlm.ingest",
            f"source={studies}",
            f"out={out}",
            f"ingest.key_file={out.parent / 'key'}",
        ]
    if part == "check":
        return ["cmrvlm.check", "data=manifest", table, f"out={out}"]
    if part == "cache":
        return ["experiments.archive.fill", f"table={studies / 'studies.csv'}", f"cache={out}"]
    return [
        "cmrvlm.evaluate",
        f"run={run}",
        "+data=manifest",
        table,
        "data.shares={val: 0.0, test: 1.0}",
        f"paths.cache={out.parent / 'cache'}",
        f"out={out}",
    ]


def measure_part(part: str, size: int, folder: Path, run: str) -> dict[str, Any]:
    """Run a part on an empty folder and once more, and return both measurements.

    Args:
        part: One of `PARTS`.
        size: Number of studies, or of files for `ingest`.
        folder: Folder of the studies of all sizes.
        run: A trained run, for `evaluate`.
    """
    if part == "ingest":
        studies = folder / f"dicom-{size}"
        write_dicom(studies, size)
    else:
        studies = folder / f"manifest-{size}"
        write_manifest(studies, size)
    out = folder / f"out-{size}" / part
    shutil.rmtree(out, ignore_errors=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    command = command_of(part, studies, out, run)
    return {"first": measure(*command), "again": measure(*command)}


def table_of(content: dict[str, Any]) -> str:
    """Return the measurements as a table."""
    lines = [
        "| part | size | seconds | ms each | peak MB | again: seconds | again: peak MB |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for part in PARTS:
        sizes = content.get(part, {})
        for size in sorted(sizes, key=int):
            first = sizes[size]["first"]
            again = sizes[size]["again"]
            each_ms = 1000 * first["seconds"] / int(size)
            lines.append(
                f"| {part} | {int(size):,} | {first['seconds']:.0f} | {each_ms:.1f} "
                f"| {first['peak_mb']} | {again['seconds']:.0f} | {again['peak_mb']} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure the parts at the sizes, and keep what was measured before."""
    default = str(Path(tempfile.gettempdir()) / "cmrvlm-archive")
    settings = given(
        {
            "sizes": "100,1000,10000",
            "files": "20000",
            "parts": ",".join(PARTS),
            "folder": default,
            "run": "",
        }
    )
    path = HERE / "metrics.json"
    content: dict[str, Any] = {}
    if path.is_file():
        content = json.loads(path.read_text())
    content["cores"] = os.cpu_count()
    for part in settings["parts"].split(","):
        sizes = settings["sizes"]
        if part == "ingest":
            sizes = settings["files"]
        if part == "evaluate" and not settings["run"]:
            CONSOLE.print("evaluate is left out: give run=<a trained run>")
            continue
        for size in sizes.split(","):
            measured = measure_part(part, int(size), Path(settings["folder"]), settings["run"])
            content.setdefault(part, {})[size] = measured
            path.write_text(json.dumps(content, indent=1) + "\n")
            (HERE / "table.md").write_text(table_of(content))
    CONSOLE.print(table_of(content), markup=False)


if __name__ == "__main__":
    main()
