"""What will this run cost? The compiler's estimates for devices that are not here, and the run's epsilon.

    python -m noisy_sgd.experiments.plan --flagfile=configs/imagenet/noisy_sgd.flags --topology=v5e:2x2x1

The real step of the run, as one replica computes it, is lowered to StableHLO by TensorFlow. For a TPU it is then
compiled by libtpu, which needs no TPU: memory, FLOPs, bytes and the estimated cycles are the TPU compiler's. For a GPU
it is compiled by XLA for this CPU, and the time is the larger of FLOPs over the peak and bytes over the bandwidth. Both
ignore the input, the start and the evaluations. Nothing is measured.

With `--export_dir=FOLDER` the programs are only written, as microbatch.mlir and update.mlir. They carry no data, and
run wherever jax does, for example on a GPU machine without TensorFlow:

    python noisy_sgd/experiments/planning/xla_program.py time sgd=A/microbatch.mlir dp_sgd=B/microbatch.mlir

jax must be installed where `--compiler_python` points to (default: this Python), for TPUs with libtpu:
`pip install "jax[tpu]==0.10.2"` in an environment of its own. NF-ResNet-50 takes minutes for each microbatch size.
"""

import dataclasses
import math
import pathlib
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from noisy_sgd import config, files
from noisy_sgd.experiments import flags
from noisy_sgd.experiments.flags import command_line, training
from noisy_sgd.experiments.planning import compiling, costs, devices, lowering
from noisy_sgd.experiments.support import startup

# Steps whose batches are counted: Poisson batches differ in size.
_STEPS_COUNTED = 100
_GIB, _GB = 2**30, 1e9
# One core decodes an image of ordinary size in about this time (`experiments.decode`).
_DECODE_SECONDS = 2.1e-3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """The run, the devices, and how they are asked about."""

    run: config.Config
    topology: str = "v5e:2x2x1"
    compiler_python: str | None = None
    largest_microbatch: bool = False
    export_dir: str | None = None


def parse(argv: Sequence[str]) -> Settings:
    """What a training run would cost on devices that are not here."""
    values = command_line.flag_set()
    training.define_run(values)
    helps = {
        "topology": "the devices: a TPU slice such as v5e:2x2x1 (v4, v5e, v5p, v6e), or GPUs such as h100:8 (a100, "
        "h100, h200)",
        "compiler_python": "a Python with jax, for TPUs also libtpu; by default this one",
        "largest_microbatch": "searches the largest microbatch size that fits, by several compilations",
        "export_dir": "writes the programs of the step into this folder, and compiles nothing",
    }
    command_line.define(values, "plan", Settings, helps)
    command_line.parse(values, argv, parse)
    return Settings(run=training.run(values), **{name: values[name].value for name in helps})


def main(settings: Settings) -> None:
    """Prints the estimates, one for each line."""
    with flags.refusals():
        chosen = devices.topology(settings.topology)
        if settings.export_dir is not None:
            startup.tensorflow()
            for path in export(settings):
                print(f"program: {path}")
            return
        compiling.check(chosen, settings.compiler_python)
        startup.tensorflow()
        for line in lines(settings, chosen):
            print(line, flush=True)


def export(settings: Settings) -> list[pathlib.Path]:
    """Writes the programs of the step; returns their paths."""
    made, size = lowering.objects(settings.run), settings.run.training.resolved_microbatch_size
    programs = {"microbatch": lowering.microbatch_program(made, settings.run, size)}
    programs["update"] = lowering.update_program(made)
    folder = pathlib.Path(settings.export_dir)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in programs.items():
        files.write(folder / f"{name}.mlir", text)
    return [folder / f"{name}.mlir" for name in programs]


def lines(settings: Settings, chosen: devices.Topology) -> list[str]:
    """The estimates as sentences."""
    made, size = lowering.objects(settings.run), settings.run.training.resolved_microbatch_size

    def compiled(text: str) -> dict[str, Any]:
        return compiling.compiled(text, chosen, settings.compiler_python)

    def microbatch(of_size: int) -> dict[str, Any]:
        return compiled(lowering.microbatch_program(made, settings.run, of_size))

    told = [
        f"Estimates of {'the TPU compiler' if chosen.kind.tpu else 'XLA for a CPU'} for {settings.topology}, "
        f"{chosen.count} replicas; nothing was measured."
    ]
    found = {"microbatch": microbatch(size), "update": compiled(lowering.update_program(made))}
    if settings.largest_microbatch:
        sizes = costs.microbatch_sizes(settings.run.training.batch_size, chosen.count)
        told.append(_largest({size: found["microbatch"]}, sizes, chosen.kind.memory, microbatch))
    lost = next((f"{name}: {part['error']}" for name, part in found.items() if "error" in part), None)
    if lost is not None:
        return [*told, f"A microbatch of {size} does not fit ({lost}); give a smaller --microbatch_size."]
    told += [_part(name, part, chosen.kind) for name, part in found.items()]
    return told + _run(settings.run, made, found, chosen, size)


def _largest(known: dict[int, dict[str, Any]], sizes: list[int], memory: int, compiled: Callable) -> str:
    def fits(size: int) -> bool:
        if size not in known:
            known[size] = compiled(size)
        return known[size].get("memory", math.inf) <= memory

    largest = costs.largest_that_fits(sizes, fits)
    tried = ", ".join(map(str, sorted(known)))
    if largest is None:
        return f"No microbatch fits (tried: {tried})."
    return f"The largest microbatch that fits is {largest} (tried: {tried})."


def _part(name: str, part: dict[str, Any], kind: devices.Kind) -> str:
    return (
        f"{name}: {part['memory'] / _GIB:.2f} of {kind.memory / _GIB:.0f} GiB memory, {part['flops'] / 1e9:.1f} GFLOP, "
        f"{part['bytes_accessed'] / _GB:.2f} GB accessed, {part['loops']} loops, compiled in "
        f"{part['compile_seconds']:.0f} s of processor time"
    )


def _run(settings: config.Config, made, found, chosen: devices.Topology, size: int) -> list[str]:
    from noisy_sgd.data import streaming
    from noisy_sgd.runs import builders

    run, count = settings.training, made.images.num_train_examples
    scheme = builders.scheme(settings, count)
    steps = range(min(run.num_steps, _STEPS_COUNTED))
    rounds = statistics.fmean(
        streaming.num_microbatches(scheme, step, size, chosen.count) / chosen.count for step in steps
    )
    microbatch, update = (costs.seconds(found[name], chosen.kind, settings.model.precision) for name in found)
    parameters = sum(int(weight.value.shape.num_elements()) for weight in made.model.trainable_weights)
    sent = costs.all_reduce_bytes(parameters, chosen.count)
    reduced = sent / chosen.kind.link
    step = rounds * microbatch + update + reduced
    images = run.batch_size / step
    statement = builders.privacy_statement(settings, made.model.optimizer, count)
    hours = run.num_steps * step / 3600
    return [
        f"a step: {1e3 * step:.1f} ms = {rounds:.2f} microbatches of {size} per replica at {1e3 * microbatch:.2f} ms + "
        f"update {1e3 * update:.2f} ms + sum over replicas {1e3 * reduced:.2f} ms ({sent / 1e6:.0f} MB sent by each)",
        f"{images:.0f} images per second, which takes about {images * _DECODE_SECONDS:.0f} cores to decode",
        f"the run: {run.num_steps} steps, {hours:.1f} hours, {hours * chosen.count:.0f} device hours, "
        f"{run.num_steps * run.batch_size / count:.1f} epochs",
        " ".join(line.strip() for line in statement.text.splitlines()[:2]),
    ]


if __name__ == "__main__":
    flags.run(parse, main)
