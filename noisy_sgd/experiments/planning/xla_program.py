"""Compiles StableHLO by JAX's XLA, for a TPU that is not here or for this CPU, and prints what the compiler says.

    python xla_program.py PROGRAM.mlir v5e:2x2x1 v5litepod-4     # or: PROGRAM.mlir cpu

It is a program of its own, for a Python that has jax (and libtpu for TPUs) and needs neither TensorFlow nor this
package: the two cannot always be installed together, and a compilation that is killed for its memory must not end the
plan. One line of JSON: bytes of memory, FLOPs, bytes accessed, the sum of XLA's estimated cycles (TPUs), seconds of
processor time, and "error" instead where the program does not fit the device.

Tested by tests/experiments/plan_test.py.
"""

import json
import os
import re
import sys
import time


def main(path: str, topology: str, machine: str = "") -> None:
    """Prints one line about the program."""
    if machine:
        # Keeps libtpu from asking the metadata server of Google Cloud.
        os.environ.update(TPU_SKIP_MDS_QUERY="1", TPU_WORKER_HOSTNAMES="localhost", TPU_ACCELERATOR_TYPE=machine)
    os.environ["JAX_PLATFORMS"] = "cpu"
    import jax
    import numpy as np
    from jax.experimental import topologies
    from jax.interpreters import mlir
    from jaxlib import xla_client
    from jaxlib.mlir import ir

    if machine:
        device = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices[0]
    else:
        device = jax.devices("cpu")[0]
    options = xla_client.CompileOptions()
    options.device_assignment = xla_client.DeviceAssignment.create(np.array([[device.id]], np.int32))
    with mlir.make_ir_context():
        module = ir.Module.parse(_known(open(path, encoding="utf-8").read()))
        # A topology has no devices to load a program on.
        compile_ = device.client.compile if machine else device.client.compile_and_load
        start = time.process_time()
        try:
            program = compile_(module, xla_client.DeviceList((device,)), options)
        except Exception as error:  # jaxlib's own type of error is not public.
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            print(json.dumps({"error": " ".join(str(error).split())[:300]}))
            return
    sizes, costs = program.get_compiled_memory_stats(), program.cost_analysis()
    costs = costs[0] if isinstance(costs, list) else costs
    names = ("argument", "output", "temp", "generated_code")
    memory = sum(getattr(sizes, f"{name}_size_in_bytes") for name in names) - sizes.alias_size_in_bytes
    text = program.hlo_modules()[0].to_string()
    cycles = [int(found) for found in re.findall(r'"estimated_cycles":"(\d+)"', text)]
    line = {
        "memory": memory,
        "flops": costs["flops"],
        "bytes_accessed": costs["bytes accessed"],
        "cycles": sum(cycles) if cycles else None,
        "loops": len(re.findall(r" while\(", text)),
        "compile_seconds": time.process_time() - start,
    }
    print(json.dumps(line))


def _known(text: str) -> str:
    """The program without the one operation of TensorFlow's that JAX's parser refuses: a copy changes nothing."""
    return re.sub(r"mhlo\.copy (%\S+) : (tensor<[^>]*>)", r"stablehlo.reshape \1 : (\2) -> \2", text)


if __name__ == "__main__":
    main(*sys.argv[1:])
