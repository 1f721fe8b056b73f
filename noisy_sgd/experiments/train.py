"""Trains one network with SGD, Noisy-SGD or DP-SGD, records the run and draws its test accuracy over the steps.

python -m noisy_sgd.experiments.train --dataset=digits --algorithm=noisy_sgd --effective_noise=0.01 --run_dir=runs/first

Tested by tests/experiments/binaries_test.py.
"""

import contextlib
import pathlib
import sys

from noisy_sgd import config, records
from noisy_sgd.experiments import flags
from noisy_sgd.experiments.support import endings, startup
from noisy_sgd.figures import images

parse = flags.train


def main(settings: config.Config) -> None:
    """Starts the run, resumes it, or draws it again if it is finished; a dry run only says what would be done."""
    if settings.run.dry_run:
        _dry_run(settings)
        return
    directory = pathlib.Path(settings.run.run_dir)
    with flags.refusals():
        records.check(directory, settings.resolved())
        finished = records.is_finished(directory, settings.resolved())
        way_out = f"remove {directory}, or choose another `--run_dir`"
        config.require(
            settings.run.resume or not finished, "resume", "cannot be off for a finished run", False, way_out
        )
        record = records.read(directory) if finished else None
    if finished:
        print("This run is finished; drawing it again.")
    else:
        record = _train(settings)
    if record is None:
        return
    results = record.results
    print(f"test accuracy {100 * results[record.accuracy]:.2f} % after {results['step']} steps")
    with endings.drawing():
        for path in images.draw_curves([record], directory / "figures", "test_accuracy"):
            print(f"figure: {path}")
    models = sorted(directory.glob("model*.keras"))
    print(f"model: {', '.join(map(str, models))}")
    print(f"record: {directory}/run.json, {directory}/metrics.jsonl; tensorboard --logdir={directory}")


def _dry_run(settings: config.Config) -> None:
    startup.tensorflow()
    from noisy_sgd.runs import builders, recorded_run

    with flags.refusals():
        objects = builders.build(settings, say=_say_aside)
        num_steps, privacy = recorded_run.planned(objects, settings)
    for group, values in settings.resolved().items():
        print(f"{group}: {', '.join(f'{name}={value}' for name, value in values.items())}")
    count = objects.images.num_train_examples
    print(f"model: {objects.model.count_params():,} weights, {objects.strategy.num_replicas_in_sync} replicas")
    print(f"data: {count:,} training examples, {num_steps * settings.training.batch_size / count:.1f} epochs")
    print(f"steps: {num_steps:,} of {settings.training.num_steps:,}")
    print(privacy.text)
    arguments = " ".join(argument for argument in sys.argv[1:] if argument != "--dry_run")
    print(f"time and memory on other devices: python -m noisy_sgd.experiments.plan {arguments} --topology=v5e:2x2x1")
    print(f"nothing was trained; the run would be recorded in {settings.run.run_dir}")


def _train(settings: config.Config) -> records.Record | None:
    # TensorFlow takes seconds to import: bad flags have ended before.
    startup.tensorflow()
    from noisy_sgd.runs import builders, callbacks, recorded_run
    from noisy_sgd.training import distribution

    with contextlib.ExitStack() as stack:
        # Another worker may be lost at any time.
        stack.enter_context(endings.failures())
        with flags.refusals():
            objects = builders.build(settings, say=_say_aside)
            chief = distribution.is_chief(objects.strategy)
            say = _say if chief else _say_nothing
            environment = startup.environment()
            started = recorded_run.started(objects, settings, environment=environment, say=say)
            run = stack.enter_context(started)
        if objects.fed is not None:
            say(objects.fed)
        say(run.privacy.text)
        stop_requested = stack.enter_context(endings.stop_requests())
        stack.enter_context(distribution.naming_lost_workers(objects.strategy))
        progress = callbacks.Progress(run.num_steps, sys.stderr, first_step=run.starting_point.step) if chief else None
        listeners = [] if progress is None else [progress]
        record = recorded_run.train(run, listeners=listeners, stop_requested=stop_requested)
        if progress is not None:
            progress.close()
        return record


def _say(text: str) -> None:
    print(text, flush=True)


def _say_aside(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _say_nothing(text: str) -> None:
    """Only the first of several workers prints."""


if __name__ == "__main__":
    flags.run(parse, main)
