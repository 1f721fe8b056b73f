"""One worker of multi_worker_test.py: trains small models under its strategy, and writes what it saw.

TF_CONFIG=... python tests/training/multi_worker_program.py OUT.npz        # a worker; `answers` serves one process too

It then trains on until another worker is lost, and prints that sentence; or until its standard input is closed, so
that it does not outlive the test.
"""

import os
import sys
import threading

import keras
import numpy as np
import tensorflow as tf

from noisy_sgd import keys, sampling
from noisy_sgd.data import bundled, streaming
from noisy_sgd.optimizers import sgd
from noisy_sgd.runs import run_state
from noisy_sgd.training import distribution, loop, private_model, training_metrics, weight_average

BATCH_SIZE, MICROBATCH_SIZE, NUM_STEPS = 12, 2, 20
NOISE_MULTIPLIER, L2_NORM_CLIP = 3.0, 0.5
LOST = 7


def image_set() -> bundled.ImageSet:
    """Random images; 45 of them, so that the last batch of an epoch is smaller and has padding."""
    rng = np.random.default_rng(0)

    def draw(count):
        return rng.integers(0, 256, [count, 4, 4, 1], dtype=np.uint8), rng.integers(0, 3, count, dtype=np.int32)

    (images, labels), (test_images, test_labels) = draw(45), draw(10)
    return bundled.ImageSet(
        name="random", train_images=images, train_labels=labels, test_images=test_images, test_labels=test_labels,
        num_classes=3, pixel_range=(0.0, 255.0),
    )  # fmt: skip


def compiled(strategy, *, hidden=8, dtype="float32", seed=3, **arguments):
    """A perceptron with DP-SGD, its metrics, steps and average; every worker starts it anew, but the chief's counts."""
    with strategy.scope():
        keras.utils.set_random_seed(1 + distribution.worker(strategy)[0])
        inputs = keras.Input((4, 4, 1), dtype=dtype)
        pixels = keras.layers.Rescaling(2 / 255, offset=-1.0, dtype=dtype)(inputs)
        features = keras.layers.Dense(hidden, "tanh", dtype=dtype)(keras.layers.Flatten(dtype=dtype)(pixels))
        model = private_model.PrivateModel(inputs, keras.layers.Dense(3, dtype=dtype)(features))
        arguments = {"learning_rate": 0.2, "noise_multiplier": 0.2, "momentum": 0.9, **arguments}
        optimizer = sgd.DPSGD(l2_norm_clip=L2_NORM_CLIP, batch_size=BATCH_SIZE, seed=seed, **arguments)
        model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        metrics = training_metrics.for_algorithm("dp_sgd")
        average = weight_average.WeightAverage(model.trainable_weights, 0.9)
        return model, metrics, loop.step_functions(model, strategy, metrics, average), average


def train(strategy, built, num_steps, masked=False, **arguments):
    """Trains through the loop, every worker on its share of the stream."""
    model, metrics, steps, _ = built
    replicas = strategy.num_replicas_in_sync
    images = image_set()
    sampler = sampling.Shuffled(images.num_train_examples, BATCH_SIZE, seed=4)
    stream = streaming.stream(
        images, sampler, MICROBATCH_SIZE,
        num_steps=num_steps, multiple_of=replicas, worker=distribution.worker(strategy),
    )  # fmt: skip
    if masked:
        stream = stream.map(_without_examples)
    loop.train(
        model, stream, lambda step: streaming.num_microbatches(sampler, step, MICROBATCH_SIZE, replicas) // replicas,
        strategy=strategy, num_steps=num_steps, metrics=metrics, steps=steps, **arguments,
    )  # fmt: skip


def answers(strategy) -> dict[str, np.ndarray]:
    """What every topology has to agree on, and the standardized noise of one step."""
    found = {"worker": np.asarray(distribution.worker(strategy))}
    for dtype, norms_every in (("float32", None), ("float64", 5)):
        built = compiled(strategy, dtype=dtype)
        with strategy.scope():
            evaluate = loop.evaluation(built[0], _test_batches())
        recorder = _Recorder()
        train(
            strategy, built, NUM_STEPS, steps_per_epoch=10, steps_per_call=3, pause_every=1, norms_every=norms_every,
            evaluate=evaluate, callbacks=[recorder],
        )  # fmt: skip
        found[f"{dtype} after 1"], found[f"{dtype} after {NUM_STEPS}"] = recorder.weights[0], recorder.weights[-1]
        found[f"{dtype} average"] = np.concatenate([np.ravel(variable.numpy()) for variable in built[3].variables])
        found[f"{dtype} metrics"] = np.asarray([[logs[name] for name in sorted(logs)] for logs in recorder.logs])
        found[f"{dtype} replicas differ"] = np.asarray(_replicas_differ(strategy, built))
    built = compiled(
        strategy, hidden=1000, seed=None, learning_rate=1.0, momentum=0.0, noise_multiplier=NOISE_MULTIPLIER
    )
    # Of secrets that differ from worker to worker, the chief's alone is to prevail.
    for name, secret in (("noise", bytes(16)), ("secret noise", keys.secret())):
        before = _flat(built[0])
        train(strategy, built, 1, masked=True, noise_secret=secret)
        found[name] = (before - _flat(built[0])) / (NOISE_MULTIPLIER * L2_NORM_CLIP / BATCH_SIZE)
    found |= _restored_metrics(strategy)
    built[0].optimizer.rekey(None)
    found["secret key"] = built[0].optimizer._noise_key.variable.numpy()
    found["collectives"] = np.asarray(_collectives_of_a_step(strategy, built[2][0]))
    return found


def facts_of_workers(strategy) -> dict[str, np.ndarray]:
    """What the workers tell each other."""
    index = distribution.worker(strategy)[0]
    images = image_set()
    refused = {
        "fit": lambda: compiled(strategy)[0].fit(images.train_images, images.train_labels, verbose=0),
        "require_same": lambda: distribution.require_same(strategy, "configuration", bytes([index])),
    }
    refusals = {}
    for name, call in refused.items():
        try:
            call()
        except ValueError as error:
            refusals[f"{name} refuses"] = np.asarray(str(error))
    distribution.require_same(strategy, "configuration", b"the same")
    topology = distribution.topology(strategy)
    told = distribution.broadcast(strategy, [b"\x00\xffchief", b"other, longer"][index])
    return {
        "broadcast": np.frombuffer(told, np.uint8),
        "gathered": np.asarray([len(data) for data in distribution.gather(strategy, bytes(3 * index))]),
        "any": np.asarray([distribution.any_worker(strategy, flag) for flag in (False, index == 1, True)]),
        **refusals,
        "topology": np.asarray([topology["replicas"], topology["workers"], len(topology["devices"])]),
    }


def _restored_metrics(strategy):
    """The metrics of three steps as they are, and after they were kept and restored, by all and by other replicas."""
    built = compiled(strategy)
    model, metrics, _, average = built
    train(strategy, built, 3)

    def results():
        return np.asarray([float(metric.result()) for metric in metrics.values()])

    found = {"metrics": results()}
    kept = run_state.arrays(strategy, model, average, metrics)
    found["rows"] = np.asarray(len(kept["metric/loss/0"]))
    for name, split in (
        ("the same replicas", lambda rows: rows),
        ("one replica", lambda rows: rows.sum(axis=0, keepdims=True)),
        ("five replicas", lambda rows: np.stack([rows.sum(axis=0), *[0 * rows[0]] * 4])),
    ):
        for metric in metrics.values():
            metric.reset_state()
        arrays = {path: split(array) if path.startswith("metric/") else array for path, array in kept.items()}
        run_state.restore(strategy, model, average, metrics, arrays)
        found[f"metrics after {name}"] = results()
    return found


class _Recorder(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.weights, self.logs = [], []

    def on_train_batch_end(self, batch, logs=None):
        self.weights.append(_flat(self.model))

    def on_epoch_end(self, epoch, logs=None):
        self.logs.append(logs)


@tf.autograph.experimental.do_not_convert
def _without_examples(images, labels, mask):
    return images, labels, tf.zeros_like(mask)


def _flat(model):
    return np.concatenate([weights.ravel() for weights in model.get_weights()])


def _replicas_differ(strategy, built):
    """How many variables are not bit for bit the same on all replicas of this process."""
    model, _, _, average = built
    variables = [variable.value for variable in [*model.variables, *model.optimizer.variables]] + average.variables
    copies = [strategy.experimental_local_results(variable) for variable in variables]
    return sum(len({copy.numpy().tobytes() for copy in values}) > 1 for values in copies)


def _test_batches():
    images = image_set()
    return [(tf.constant(images.test_images), tf.constant(images.test_labels), tf.ones([10], tf.bool))]


def _collectives_of_a_step(strategy, step):
    """How many collective operations a training step has, and how many of them are outside the loop of microbatches."""
    shape = [MICROBATCH_SIZE]
    microbatch = (tf.zeros([*shape, 4, 4, 1], tf.uint8), tf.zeros(shape, tf.int32), tf.ones(shape, tf.bool))
    # Finite, as `sampling.stream` is.
    dataset = tf.data.Dataset.from_tensors(microbatch).repeat(2)
    iterator = iter(strategy.distribute_datasets_from_function(lambda _: dataset))
    graph = step.get_concrete_function(iterator, tf.zeros([1], tf.int32), tf.constant(1)).graph.as_graph_def()
    bodies = {function.signature.name: function.node_def for function in graph.library.function}
    bodies[""] = graph.node
    counts = {name: sum(node.op.startswith("Collective") for node in nodes) for name, nodes in bodies.items()}
    around_a_loop = [
        name for name, nodes in bodies.items() if {node.op for node in nodes} & {"While", "StatelessWhile"}
    ]
    return sum(counts.values()), sum(counts[name] for name in around_a_loop)


def _main(path):
    threading.Thread(target=_end_with_standard_input, daemon=True).start()
    strategy = distribution.make_strategy("multi_worker")
    found = answers(strategy) | facts_of_workers(strategy)
    np.savez(path + ".part.npz", **found)
    os.replace(path + ".part.npz", path)
    try:
        with distribution.naming_lost_workers(strategy):
            train(strategy, compiled(strategy), 10**7)
    except distribution.WorkerLost as lost:
        print(lost, flush=True)
        sys.exit(LOST)


def _end_with_standard_input():
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    _main(sys.argv[1])
