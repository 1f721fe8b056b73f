"""Times the toy problems' simulation against an equivalent plain NumPy loop and a JAX program; one JSON line per case.

    python -m noisy_sgd.experiments.benchmark --workload=diagonal_linear

20 runs of Noisy-SGD on the paper's network (n = 40, d = 100) in float64, in turns within one process. JAX (`lax.scan`
under `vmap`, compiled before) takes part where it is installed; nothing here needs it.
"""

import importlib.util
import json
import statistics
import time
from collections.abc import Callable

import numpy as np

from noisy_sgd import keys
from noisy_sgd.data import regression
from noisy_sgd.experiments.benchmarks import cases
from noisy_sgd.toy import settings, simulation

NUM_RUNS, ALPHA, NOISE_SCALE = 20, 0.1, 0.5
# Stable for every run: arithmetic on overflowed values takes another time.
RELATIVE_STEP = 0.3

Program = Callable[[int], np.ndarray]


def main(asked: cases.Benchmark, num_steps: int = 5_000) -> None:
    """Prints one line per case.

    Args:
        asked: of which the number of rounds is read.
        num_steps: of every run in one round. Defaults to 5,000.
    """
    problem = regression.sparse(0)
    programs: dict[str, Program] = {
        "simulation": _simulation(problem, num_steps),
        "numpy_loop": _numpy_loop(problem, num_steps),
    }
    if importlib.util.find_spec("jax"):
        programs["jax"] = _jax(problem, num_steps)
    losses = {name: float(np.median(program(0))) for name, program in programs.items()}
    times = {name: [] for name in programs}
    for seed in range(1, asked.num_rounds + 1):
        for name, program in programs.items():
            start = time.perf_counter()
            program(seed)
            times[name].append(time.perf_counter() - start)
    rates = {name: NUM_RUNS * num_steps / statistics.median(values) for name, values in times.items()}
    for name in ("simulation", "numpy_loop", "jax"):
        print(json.dumps(_line(asked, name, num_steps, rates, losses)))


def _line(asked: cases.Benchmark, name: str, num_steps: int, rates: dict[str, float], losses: dict[str, float]) -> dict:
    line = {"workload": asked.workload, "case": name, "rounds": asked.num_rounds}
    if name not in rates:
        return line | {"run_steps_per_s": None, "note": "not installed"}
    return line | {
        "runs": NUM_RUNS,
        "steps": num_steps,
        "run_steps_per_s": round(rates[name]),
        "ratio_to_numpy_loop": round(rates[name] / rates["numpy_loop"], 3),
        "median_loss": losses[name],
    }


def _simulation(problem: regression.Problem, num_steps: int) -> Program:
    setting = settings.RunSettings(
        model="diagonal_linear",
        features=problem.features,
        targets=problem.targets,
        num_runs=NUM_RUNS,
        step_size=RELATIVE_STEP / problem.largest_eigenvalue,
        noise_scale=NOISE_SCALE,
        initial=ALPHA,
    )
    return lambda seed: simulation.simulate(setting, num_steps, seed, grid=[num_steps]).loss[-1]


def _numpy_loop(problem: regression.Problem, num_steps: int) -> Program:
    features, targets = problem.features, problem.targets
    step_size, rows = RELATIVE_STEP / problem.largest_eigenvalue, np.arange(NUM_RUNS)

    def run(seed):
        generator = keys.arbitrary(seed)
        plus, minus = np.full((2, NUM_RUNS, features.shape[1]), ALPHA)
        for _ in range(num_steps):
            residual = (plus**2 - minus**2) @ features.T - targets
            chosen = generator.integers(len(targets), size=NUM_RUNS)
            size = NOISE_SCALE * np.sqrt(np.mean(residual**2, axis=1))
            slope = residual[rows, chosen][:, None] * features[chosen]
            relative = step_size * (slope - size[:, None] * generator.standard_normal(plus.shape))
            plus, minus = plus * (1 - relative), minus * (1 + relative)
        return np.mean(((plus**2 - minus**2) @ features.T - targets) ** 2, axis=1) / 4

    return run


def _jax(problem: regression.Problem, num_steps: int) -> Program:
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    features, targets = jnp.asarray(problem.features), jnp.asarray(problem.targets)
    step_size = RELATIVE_STEP / problem.largest_eigenvalue

    def step(weights, key):
        plus, minus = weights
        sampling, noise = jax.random.split(key)
        residual = features @ (plus**2 - minus**2) - targets
        chosen = jax.random.randint(sampling, (), 0, len(targets))
        size = NOISE_SCALE * jnp.sqrt(jnp.mean(residual**2))
        normals = jax.random.normal(noise, plus.shape, plus.dtype)
        relative = step_size * (residual[chosen] * features[chosen] - size * normals)
        return (plus * (1 - relative), minus * (1 + relative)), None

    def run(key):
        start = jnp.full(features.shape[1], ALPHA)
        (plus, minus), _ = jax.lax.scan(step, (start, start), jax.random.split(key, num_steps))
        return jnp.mean((features @ (plus**2 - minus**2) - targets) ** 2) / 4

    program = jax.jit(jax.vmap(run))
    return lambda seed: np.asarray(program(jax.random.split(jax.random.key(seed), NUM_RUNS)))
