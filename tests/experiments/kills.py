"""Kills training runs at random moments, resumes them, and compares them byte for byte with unbroken ones.

    python tests/experiments/kills.py --kills=25 --folder=runs/kills

A run is begun and killed as soon as it has its secret, and copied: one copy goes on unbroken, the other is killed
again and again, at a random moment of its steps or in the middle of writing a checkpoint, and at last let finish. Both
then have the same secret, and must end with the same weights, metrics and ledger. Four runs share the kills: one
replica and two, shuffled and Poisson batches; all of DP-SGD with momentum, a moving average and augmentation.
"""

import argparse
import dataclasses
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

CASES = {
    "default, shuffled": ["--strategy=default", "--sampling=shuffled"],
    "mirrored, Poisson": ["--strategy=mirrored", "--logical_devices=2", "--sampling=poisson"],
    "default, Poisson": ["--strategy=default", "--sampling=poisson"],
    "mirrored, shuffled": ["--strategy=mirrored", "--logical_devices=2", "--sampling=shuffled"],
}
NUM_STEPS, CHECKPOINT_EVERY = 150, 7
FLAGS = [
    "--algorithm=dp_sgd", "--l2_norm_clip=1", "--noise_multiplier=1.1", "--learning_rate=0.2", "--momentum=0.9",
    "--ema_decay=0.95", "--dataset=digits", "--model=mlp", "--hidden=64", "--batch_size=64", "--microbatch_size=16",
    "--augmentation=flip_and_crop", "--augmentation_multiplicity=2", f"--num_steps={NUM_STEPS}", "--eval_every=10",
    f"--checkpoint_every={CHECKPOINT_EVERY}",
]  # fmt: skip
COMPARED = ("metrics.jsonl", "private/metrics.jsonl", "checkpoints/ledger.jsonl")
_PATIENCE = 180.0


@dataclasses.dataclass(kw_only=True)
class Outcome:
    """What happened to a killed run; `differing` names the files that are not those of the unbroken one."""

    in_steps: int = 0
    in_writes: int = 0
    elsewhere: int = 0
    differing: list[str] = dataclasses.field(default_factory=list)

    @property
    def kills(self) -> int:
        return self.in_steps + self.in_writes + self.elsewhere


def kill_and_compare(case: str, kills: int, folder: pathlib.Path, generator: random.Random) -> Outcome:
    """Runs one case with so many kills, about one in three of them in the middle of writing a checkpoint."""
    begun, unbroken, killed = (folder / name for name in ("begun", "unbroken", "killed"))
    process = _start(case, begun)
    _wait(process, lambda: (begun / "checkpoints" / "step_00000000.npz").exists())
    _kill(process)
    for copy in (unbroken, killed):
        shutil.copytree(begun, copy)
    _finish(_start(case, unbroken))
    outcome = Outcome()
    for number in range(kills):
        in_write = number % 3 == 2
        where = _kill_once(case, killed, generator, in_write=in_write, left=kills - number)
        setattr(outcome, where, getattr(outcome, where) + 1)
    _finish(_start(case, killed))
    last = f"checkpoints/step_{NUM_STEPS:08d}.npz"
    for name in (*COMPARED, last):
        if (unbroken / name).read_bytes() != (killed / name).read_bytes():
            outcome.differing.append(name)
    return outcome


def _kill_once(case: str, directory: pathlib.Path, generator: random.Random, *, in_write: bool, left: int) -> str:
    """Lets the run go on for a while, then kills it; says where it was."""
    first = _newest(directory)
    process = _start(case, directory)
    # The kills that are left share the steps that are left.
    target = first + (NUM_STEPS - first) // (left + 1) * generator.uniform(0.3, 1.0)
    _wait(process, lambda: _newest(directory) >= min(target, NUM_STEPS - 3 * CHECKPOINT_EVERY))
    if in_write:
        _wait(process, lambda: bool(_half_written(directory)), pause=0.0)
    else:
        time.sleep(generator.uniform(0.0, 0.5))
    _kill(process)
    if _half_written(directory):
        return "in_writes"
    text = (directory / "checkpoints" / "ledger.jsonl").read_text()
    covered = int(text.splitlines()[-1].rpartition(":")[2].strip(" }"))
    return "in_steps" if covered > _newest(directory) else "elsewhere"


def _start(case: str, directory: pathlib.Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "noisy_sgd.experiments.train", *FLAGS, *CASES[case], f"--run_dir={directory}"]
    root = pathlib.Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(root)}
    return subprocess.Popen(
        command, cwd=root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def _wait(process: subprocess.Popen, reached, pause: float = 0.01) -> None:
    end = time.monotonic() + _PATIENCE
    while not reached():
        if process.poll() is not None or time.monotonic() > end:
            process.kill()
            raise RuntimeError(f"The run ended, or did not get on:\n{process.communicate()[0]}")
        time.sleep(pause)


def _kill(process: subprocess.Popen) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


def _finish(process: subprocess.Popen) -> None:
    output, _ = process.communicate(timeout=_PATIENCE)
    if process.returncode:
        raise RuntimeError(f"The run failed:\n{output}")


def _newest(directory: pathlib.Path) -> int:
    steps = [int(path.stem.removeprefix("step_")) for path in directory.glob("checkpoints/step_*.npz")]
    return max(steps, default=-1)


def _half_written(directory: pathlib.Path) -> list[str]:
    return [name for name in os.listdir(directory / "checkpoints") if name.startswith(".step_")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--folder", type=pathlib.Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    folder = options.folder.absolute()
    if folder.exists():
        parser.error(f"--folder must not exist yet (Received: {folder}); name another")
    generator = random.Random(options.seed)
    total = Outcome()
    for number, case in enumerate(CASES):
        kills = options.kills // len(CASES) + (number < options.kills % len(CASES))
        outcome = kill_and_compare(case, kills, folder / str(number), generator)
        verdict = f"differs in {', '.join(outcome.differing)}" if outcome.differing else "the same bytes"
        print(
            f"{case}: {outcome.kills} kills, {outcome.in_steps} in steps, {outcome.in_writes} in checkpoint writes, "
            f"{outcome.elsewhere} elsewhere: {verdict}",
            flush=True,
        )
        for name in ("in_steps", "in_writes", "elsewhere", "differing"):
            setattr(total, name, getattr(total, name) + getattr(outcome, name))
    print(
        f"total: {total.kills} kills, {total.in_steps} in steps, {total.in_writes} in checkpoint writes: "
        + ("some runs differ" if total.differing else "all runs end with the bytes of unbroken ones")
    )
    sys.exit(bool(total.differing))


if __name__ == "__main__":
    main()
