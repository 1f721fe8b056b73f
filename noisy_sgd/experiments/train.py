"""Trains one network by SGD, Noisy-SGD or DP-SGD, records the run and draws its test accuracy over the steps.

python -m noisy_sgd.experiments.train --dataset=digits --algorithm=noisy_sgd --effective_noise=0.01 --run_dir=runs/first
"""

import pathlib
import sys

from noisy_sgd import config, records
from noisy_sgd.experiments import flags, startup
from noisy_sgd.figures import images


def main(settings: config.Config) -> None:
    """Runs the configuration, or draws it again where it is finished."""
    directory = pathlib.Path(settings.run.run_dir)
    with flags.refusals():
        records.check(directory, settings.resolved())
    if records.is_finished(directory, settings.resolved()):
        print("This run is finished; drawing it again.")
        record = records.read(directory)
    else:
        record = _train(settings)
    results = record.results
    print(f"test accuracy {100 * results[record.accuracy]:.2f} % after {results['step']} steps")
    for path in images.draw_curves([record], directory / "figures", "test_accuracy"):
        print(f"figure: {path}")
    print(f"record: {directory}/run.json, {directory}/metrics.jsonl; tensorboard --logdir={directory}")


def _train(settings: config.Config) -> records.Record:
    # TensorFlow takes seconds to import: bad flags have ended before.
    startup.tensorflow()
    from noisy_sgd.training import builders, callbacks, recorded_run

    with flags.refusals():
        built = builders.build(settings)
        privacy = builders.privacy_statement(settings, len(built.images.train_labels))
        run = recorded_run.start(settings, privacy)
    print(privacy.text, flush=True)
    progress = callbacks.Progress(settings.algorithm.num_steps, sys.stderr)
    record = recorded_run.train(built, settings, run, listeners=[progress])
    progress.close()
    return record


if __name__ == "__main__":
    flags.run(flags.train, main)
