"""What the machine is: the properties of its processor, and one line for records and reports.

    machine.described()    # "AMD EPYC 7B13, 2 cores"

Covered by tests/records_test.py.
"""

import os
import platform


def processor() -> dict[str, str]:
    """The fields that Linux lists of the first processor; none on other systems."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            first, _, _ = file.read().partition("\n\n")
    except OSError:
        return {}
    lines = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in lines}


def described() -> str:
    """The processor's name and the number of cores."""
    return f"{processor().get('model name', platform.machine())}, {os.cpu_count()} cores"
