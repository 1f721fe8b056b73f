"""How much memory this process takes, in MiB (Linux; None elsewhere).

before = memory.resident()
memory.forget_peak(); run(); memory.peak() - before
"""

import ctypes
import gc
import pathlib
import re

_STATUS = pathlib.Path("/proc/self/status")


def resident() -> float | None:
    """Present memory, after free memory has been returned to the system."""
    _release()
    return _line("VmRSS")


def peak() -> float | None:
    """Largest memory since the start, or since `forget_peak`."""
    return _line("VmHWM")


def forget_peak() -> None:
    """Makes `peak` start again from the present size."""
    _release()
    if _STATUS.exists():
        # 5 makes VmHWM start again (proc(5)).
        pathlib.Path("/proc/self/clear_refs").write_text("5")


def _release() -> None:
    gc.collect()
    if _STATUS.exists():
        ctypes.CDLL(None).malloc_trim(0)


def _line(name: str) -> float | None:
    if not _STATUS.exists():
        return None
    return int(re.search(rf"{name}:\s*(\d+) kB", _STATUS.read_text()).group(1)) / 1024
