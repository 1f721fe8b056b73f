"""Figure 1's protocol, scaled down: steps, learning rate and sigma / B are fixed, the batch size varies; several seeds.

    python -m noisy_sgd.experiments.batch_size_sweep --flagfile=configs/batch_size_sweep/digits.flags

Every run is recorded in a folder of its own. Finished runs are not run again: an interrupted sweep goes on where it
stopped, and a finished sweep is only drawn.

Tested by tests/experiments/binaries_test.py.
"""

import contextlib
import itertools
import pathlib
import sys
from typing import Any

from noisy_sgd import config, records
from noisy_sgd.experiments import flags
from noisy_sgd.experiments.support import endings, startup
from noisy_sgd.figures import images

parse = flags.batch_size_sweep


def main(sweep: config.Sweep) -> None:
    """Makes the missing runs, and draws the figures."""
    run(sweep)
    with endings.drawing():
        for path in draw(sweep, pathlib.Path(sweep.run_dir) / "figures"):
            print(f"figure: {path}")
    print(f"records: {sweep.run_dir}/*/run.json and metrics.jsonl; tensorboard --logdir={sweep.run_dir}")


def run(sweep: config.Sweep) -> None:
    """Makes the runs that are not finished; the seeds of one algorithm and batch size share a compiled step."""
    with flags.refusals():
        for settings in sweep.runs.values():
            records.check(settings.run.run_dir, settings.resolved())
    missing = [one for one in sweep.runs.values() if not records.is_finished(one.run.run_dir, one.resolved())]
    print(f"{len(sweep.runs) - len(missing)} of {len(sweep.runs)} runs are finished.", flush=True)
    if not missing:
        return
    startup.tensorflow()
    from noisy_sgd.runs import builders, callbacks, recorded_run

    progress = callbacks.Progress(sum(one.training.num_steps for one in missing), sys.stderr)
    with endings.stop_requests() as stop_requested, endings.failures():
        for training, group in itertools.groupby(missing, key=lambda one: one.training):
            objects = None
            for settings in group:
                with contextlib.ExitStack() as stack:
                    with flags.refusals():
                        first = objects is None
                        if first:
                            objects = builders.build(settings)
                        else:
                            builders.restart(objects, settings)
                        started = recorded_run.started(objects, settings, environment=startup.environment(), say=_say)
                        run = stack.enter_context(started)
                    if first:
                        if objects.fed is not None:
                            _say(objects.fed)
                        _announce(training, run.privacy)
                    recorded_run.train(run, listeners=[progress], stop_requested=stop_requested)
    progress.close()


def _say(sentence: str) -> None:
    print(sentence, flush=True)


def _announce(training: config.Training, privacy: Any) -> None:
    if training.algorithm == "dp_sgd":
        claim = " ".join((privacy.text.splitlines()[1], *(f"Warning: {warning}." for warning in privacy.warnings)))
        print(f"dp_sgd, batch size {training.batch_size}: {claim}", flush=True)


def draw(sweep: config.Sweep, directory: pathlib.Path) -> list[pathlib.Path]:
    """Draws Figures 1 and 2 from the records; returns all paths."""
    with flags.refusals():
        runs = [records.read(settings.run.run_dir) for settings in sweep.runs.values()]
    paths = images.draw_batch_size_sweep(runs, directory) + images.draw_curves(runs, directory)
    if any(settings.training.algorithm == "noisy_sgd" for settings in sweep.runs.values()):
        paths += images.draw_norms(runs, directory)
    return paths


if __name__ == "__main__":
    flags.run(parse, main)
