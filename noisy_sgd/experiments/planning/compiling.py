"""Runs `xla_program` in a Python that has jax.

    compiling.compiled("module ...", devices.topology("v5e:2x2x1"), python="python")["memory"]     # bytes

Tested by tests/experiments/plan_test.py.
"""

import json
import pathlib
import subprocess
import sys
import tempfile
from typing import Any

from noisy_sgd import config
from noisy_sgd.experiments.planning import devices

_PROGRAM = pathlib.Path(__file__).with_name("xla_program.py")
_WAY_OUT = 'make an environment of its own with `pip install "jax[tpu]==0.10.2"` and give its python'


def check(chosen: devices.Topology, python: str | None) -> None:
    """Refuses a Python without jax, or for TPUs without libtpu.

    Raises:
        config.ConfigError: naming the flag and the command that installs them.
    """
    needed = ["jax", *(["libtpu"] if chosen.kind.tpu else [])]
    try:
        asked = [python or sys.executable, "-c", f"import {', '.join(needed)}"]
        ended = subprocess.run(asked, capture_output=True, text=True, check=False)
        reason = ended.stderr.strip().splitlines()[-1:] if ended.returncode else None
    except OSError as error:
        reason = [error.strerror]
    constraint = f"must be a Python with {' and '.join(needed)}"
    received = f"{python or sys.executable}: {''.join(reason or [])}"
    config.require(reason is None, "compiler_python", constraint, received, _WAY_OUT)


def compiled(program: str, chosen: devices.Topology, python: str | None) -> dict[str, Any]:
    """What the compiler says about a program, as `xla_program` prints it; "error" where it does not fit the device.

    Raises:
        ValueError: if the compilation fails for another reason.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "program.mlir")
        path.write_text(program, encoding="utf-8")
        target = [chosen.name, chosen.kind.tpu] if chosen.kind.tpu else ["cpu"]
        command = [python or sys.executable, str(_PROGRAM), "estimate", str(path), *target]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        last = (ended.stderr.strip().splitlines() or [f"it ended with status {ended.returncode}"])[-1]
        raise ValueError(f"`topology` must be one that can be compiled for. Received: {chosen.name} ({last[:300]})")
    return json.loads(ended.stdout.splitlines()[-1])
