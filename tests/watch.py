"""Watch what a piece of code does to the machine: files written or removed, processes, sockets, foreign code."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Events of sys.audit that files of others must never cause.
_PROCESSES = {
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.fork",
    "os.forkpty",
    "os.posix_spawn",
    "os.spawn",
    "os.kill",
    "os.putenv",
    "pty.spawn",
    "socket.connect",
    "socket.bind",
    "socket.getaddrinfo",
    "webbrowser.open",
    "urllib.Request",
    "code.__new__",
    "pickle.find_class",
    "marshal.loads",
}
_REMOVALS = {
    "os.remove",
    "os.rmdir",
    "os.rename",
    "os.truncate",
    "os.chmod",
    "os.chown",
    "os.link",
    "os.symlink",
    "shutil.rmtree",
    "shutil.move",
}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_active: list[tuple[list[str], tuple[Path, ...], Path]] = []


# Position of each path among the arguments of an event, and of the open folder that it begins at.
_PATHS = {
    "os.remove": ((0, 1),),
    "os.rmdir": ((0, 1),),
    "os.mkdir": ((0, 2),),
    "os.chmod": ((0, 2),),
    "os.chown": ((0, 3),),
    "os.rename": ((0, 2), (1, 3)),
    "os.link": ((1, 3),),
    "os.symlink": ((1, 2),),
    "shutil.rmtree": ((0, 1),),
    "shutil.move": ((0, None), (1, None)),
}


def _path_of(argument: object, folder: object = None) -> Path | None:
    if isinstance(argument, bytes):
        argument = os.fsdecode(argument)
    if not isinstance(argument, (str, os.PathLike)):
        return None
    if isinstance(folder, int) and folder >= 0:
        return Path(os.readlink(f"/proc/self/fd/{folder}"), argument)
    return Path(os.path.abspath(argument))


def _paths_of(event: str, arguments: tuple) -> Iterator[Path]:
    """The paths that an event writes or removes."""
    for position, folder in _PATHS.get(event, ((0, None),)):
        if position >= len(arguments):
            continue
        has_folder = folder is not None and folder < len(arguments)
        path = _path_of(arguments[position], arguments[folder] if has_folder else None)
        if path is not None and path != Path(os.devnull):
            yield path


def _hook(event: str, arguments: tuple) -> None:
    if not _active:
        return
    seen, allowed, foreign = _active[-1]
    if event in _PROCESSES:
        # Python reads its own compiled modules by marshal.
        if event not in ("marshal.loads", "code.__new__"):
            seen.append(f"{event} {arguments!r}"[:200])
        return
    if event == "exec":
        file = getattr(arguments[0], "co_filename", "")
        if str(file).startswith(str(foreign)):
            seen.append(f"exec {file}")
        return
    writes = event in _REMOVALS or event == "os.mkdir"
    if event == "open" and isinstance(arguments[2], int):
        writes = bool(arguments[2] & _WRITING)
    for path in _paths_of(event, arguments) if writes else ():
        is_allowed = any(path.is_relative_to(folder) for folder in (*allowed, "/dev/shm"))
        if "__pycache__" not in path.parts and not is_allowed:
            seen.append(f"{event} {path}")


@contextmanager
def watched(foreign: Path, *allowed: Path) -> Iterator[list[str]]:
    """Yield a list to which everything is added that code in the block does and may not.

    Args:
        foreign: Folder of another person's files, of which nothing may be run.
        allowed: Folders that may be written into.
    """
    if not hasattr(sys, "_cmrvlm_watch"):
        sys.addaudithook(_hook)
        sys._cmrvlm_watch = True
    seen: list[str] = []
    _active.append((seen, allowed, foreign))
    try:
        yield seen
    finally:
        _active.pop()
