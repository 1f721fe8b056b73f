"""Compiles StableHLO by JAX's XLA: estimates for a TPU that is not here, or times on the device that is.

    python xla_program.py estimate PROGRAM.mlir v5e:2x2x1 v5litepod-4     # for a TPU; PROGRAM.mlir cpu for this CPU
    python xla_program.py time sgd=PLAIN.mlir dp_sgd=PRIVATE.mlir         # on a GPU, or what else jax finds here

It is a program of its own, for a Python that has jax (and libtpu for TPUs) and needs neither TensorFlow nor this
package: the two cannot always be installed together, and a compilation that is killed for its memory must not end the
plan. It prints one line of JSON for each program.

An estimate has bytes of memory, FLOPs, bytes accessed, the sum of XLA's estimated cycles (TPUs), the number of loops,
and the seconds of processor time of the compilation; "error" instead where the program does not fit the device. Timed
programs take turns, on random arrays in place of weights and images: median milliseconds, images per second, and the
ratio to the first program.

Tested by tests/experiments/plan_test.py.
"""

import json
import os
import re
import statistics
import sys
import time

_ROUNDS = 20


def estimate(path: str, topology: str, machine: str = "") -> None:
    """Prints what the compiler says about a program."""
    if machine:
        # Keeps libtpu from asking the metadata server of Google Cloud.
        os.environ.update(TPU_SKIP_MDS_QUERY="1", TPU_WORKER_HOSTNAMES="localhost", TPU_ACCELERATOR_TYPE=machine)
    os.environ["JAX_PLATFORMS"] = "cpu"
    import jax
    from jax.experimental import topologies

    if machine:
        device = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices[0]
    else:
        device = jax.devices("cpu")[0]
    start = time.process_time()
    try:
        # A topology has no devices to load a program on.
        program, _ = _compiled(path, device, device.client.compile if machine else device.client.compile_and_load)
    except Exception as error:  # jaxlib's own type of error is not public.
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        print(json.dumps({"error": " ".join(str(error).split())[:300]}))
        return
    print(json.dumps(_said(program) | {"compile_seconds": time.process_time() - start}))


def _said(program) -> dict:
    """What a compiled program says about itself."""
    sizes, costs = program.get_compiled_memory_stats(), program.cost_analysis()
    costs = costs[0] if isinstance(costs, list) else costs
    names = ("argument", "output", "temp", "generated_code")
    text = program.hlo_modules()[0].to_string()
    cycles = [int(found) for found in re.findall(r'"estimated_cycles":"(\d+)"', text)]
    return {
        "memory": sum(getattr(sizes, f"{name}_size_in_bytes") for name in names) - sizes.alias_size_in_bytes,
        "flops": costs["flops"],
        "bytes_accessed": costs["bytes accessed"],
        "cycles": sum(cycles) if cycles else None,
        "loops": len(re.findall(r" while\(", text)),
    }


def measure(named_paths: list[str]) -> None:
    """Prints the times of programs on the first device that jax finds."""
    import jax

    device, programs = jax.devices()[0], {}
    for named in named_paths:
        name, _, path = named.partition("=")
        program, types = _compiled(path, device, device.client.compile_and_load)
        programs[name] = program, [jax.device_put(_array(kind), device) for kind in types], _images(types)
    times = {name: [] for name in programs}
    for turn in range(_ROUNDS + 1):
        for name, (program, arguments, _) in programs.items():
            start = time.perf_counter()
            jax.block_until_ready(program.execute(arguments))
            if turn:
                times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(found) for name, found in times.items()}
    for name, median in medians.items():
        line = {
            "program": name,
            "device": device.device_kind,
            "images": programs[name][2],
            "median_ms": round(1e3 * median, 3),
            "images_per_second": round(programs[name][2] / median, 2),
            "ratio": round(median / next(iter(medians.values())), 4),
        }
        print(json.dumps(line))


def _compiled(path, device, compile_):
    """The program, and the types of its arguments."""
    import numpy as np
    from jax.interpreters import mlir
    from jaxlib import xla_client
    from jaxlib.mlir import ir

    options = xla_client.CompileOptions()
    options.device_assignment = xla_client.DeviceAssignment.create(np.array([[device.id]], np.int32))
    with open(path, encoding="utf-8") as file:
        text = file.read()
    with mlir.make_ir_context():
        module = ir.Module.parse(_known(text))
        main = next(one for one in module.body.operations if one.attributes["sym_name"].value == "main")
        types = [(tuple(kind.shape), str(kind.element_type)) for kind in map(ir.RankedTensorType, main.type.inputs)]
        return compile_(module, xla_client.DeviceList((device,)), options), types


def _known(text: str) -> str:
    """The program as JAX's parser takes it, and with arguments that can be used again.

    TensorFlow's `mhlo.copy` changes nothing. An output that takes the memory of an argument would end that argument.
    """
    text = re.sub(r"mhlo\.copy (%\S+) : (tensor<[^>]*>)", r"stablehlo.reshape \1 : (\2) -> \2", text)
    return text if len(sys.argv) > 1 and sys.argv[1] == "estimate" else _without_aliases(text)


def _without_aliases(text: str) -> str:
    start = text.find("mhlo.input_output_alias = [")
    if start < 0:
        return text
    depth = 0
    for place in range(text.index("[", start), len(text)):
        depth += {"[": 1, "]": -1}.get(text[place], 0)
        if depth == 0:
            return text[:start] + text[place + 1 :].lstrip(", ")
    return text


def _images(types) -> int:
    """How many images a program takes: its one argument of bytes; 1 for a program without."""
    return next((shape[0] for shape, kind in types if kind == "ui8" and len(shape) > 3), 1)


def _array(kind):
    """Random numbers in place of an argument."""
    import jax
    import jax.numpy as jnp

    shape, element = kind
    dtypes = {"f32": jnp.float32, "bf16": jnp.bfloat16, "f64": jnp.float64, "i1": jnp.bool_, "ui8": jnp.uint8}
    dtype = dtypes.get(element) or jnp.dtype({"i": "int", "u": "uint"}[element[0]] + element.lstrip("ui"))
    if jnp.issubdtype(dtype, jnp.floating):
        return 0.05 * jax.random.normal(jax.random.key(0), shape, dtype)
    if dtype == jnp.bool_:
        return jnp.ones(shape, dtype)
    return jax.random.randint(jax.random.key(0), shape, 0, 10 if dtype != jnp.uint8 else 255).astype(dtype)


if __name__ == "__main__":
    os.environ.setdefault("JAX_ENABLE_X64", "1")  # Counters are int64.
    if sys.argv[1] == "time":
        measure(sys.argv[2:])
    else:
        estimate(*sys.argv[2:])
