"""What an attack finds in trained models, as a lower bound on epsilon, against the epsilon that the run claims.

Two audits, of DP-SGD calibrated to an epsilon and of Noisy-SGD with the same noise on the mean gradient:

    one run     the recorded run of the binary `train`, on images with m canaries, each included by a coin of its own
                key. The scores are the coins that explain the final weights best, by ridge regression.
    many runs   one canary, in the data of every other one of many runs of a tiny network, of one step each. The score
                is the final loss.

The attacker knows the images, the canaries, the initial weights and how it was trained, and sees the final weights.
The coins and the noise are secrets of the operating system, so that no two audits are alike.

The regression takes every step's gradient at the initial weights. Let G [m, d] hold the canaries' gradients, clipped
for DP-SGD, and w be the mean final weights of the other runs, whose coins say nothing about this run's. Then

    (w - w_run) B / (learning_rate T) = G' (coins - mean coins) + noise of standard deviation sigma C / sqrt(T)

With noise that is correlated over steps the variance of the noise is (sigma C / T)^2 sum_j (c_0 + ... + c_j)^2, j < T.

    setup = audit.Setup(num_steps=4)
    lines = audit.one_run(setup, "dp_sgd", epsilon=1.0, num_canaries=200, num_guesses=80, num_runs=3)
    lines[0]["epsilon_lower_bound"], lines[0]["largest_bound"]
    line = audit.many_runs(setup, "dp_sgd", epsilon=8.0, num_trials=60_000)
"""

import dataclasses
import pathlib
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from scipy import linalg, special

from noisy_sgd import config, keys, privacy
from noisy_sgd.data import bundled, canaries
from noisy_sgd.mechanisms import toeplitz
from noisy_sgd.privacy.auditing import many_runs as many
from noisy_sgd.privacy.auditing import membership
from noisy_sgd.privacy.auditing import one_run as one
from noisy_sgd.runs import builders, recorded_run

ALGORITHMS = ("dp_sgd", "noisy_sgd")
_FALSE_POSITIVE_RATES = (0.001, 0.01)
_GRADIENTS_AT_A_TIME, _TRIALS_AT_A_TIME = 100, 1000
_SMALLEST_MICROBATCH, _LARGEST_MICROBATCH = 64, 4096
# The tiny network of the many-run audit, and how many images it sees beside the canary.
_TINY_HIDDEN, _TINY_EXAMPLES = (8,), 9


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setup:
    """The training that is audited; all examples take part in every step.

    Attributes:
        num_examples: images of digits beside the canaries.
        hidden: units of the perceptron.
        num_steps: of a run.
        learning_rate: on the mean gradient.
        l2_norm_clip: C.
        delta: of the claim.
        confidence: of the bounds.
        seed: of the images, the canaries and the initial weights, which the attacker knows.
        noise_correlation: as in `config.Training`; DP-SGD's batches are then cyclic. Only one run can be audited so:
            many runs would share their draws.
    """

    num_examples: int = 100
    hidden: int = 32
    num_steps: int = 5
    learning_rate: float = 0.5
    l2_norm_clip: float = 0.1
    delta: float = 1e-8
    confidence: float = one.CONFIDENCE
    seed: int = 0
    noise_correlation: str | None = None

    def training(self, algorithm: str, epsilon: float, num_examples: int) -> config.Training:
        """DP-SGD that claims an epsilon, or Noisy-SGD with the same noise on the mean gradient."""
        size, correlation = num_examples, self.noise_correlation
        sampling, noise = ("shuffled", None) if correlation is None else ("cyclic", builders.noise(correlation))
        sigma = privacy.noise_multiplier_for(
            epsilon, size, size, self.num_steps, self.delta, sampling=sampling, noise=noise
        )
        own = {"noise_multiplier": sigma, "l2_norm_clip": self.l2_norm_clip, "delta": self.delta}
        own |= {"sampling": sampling, "noise_correlation": correlation}
        if algorithm == "noisy_sgd":
            own = {
                "noise_correlation": correlation,
                "effective_noise": sigma * self.l2_norm_clip / num_examples,
                "noise_seed": _secret_number(),
            }
        return config.Training(
            algorithm=algorithm,
            batch_size=num_examples,
            microbatch_size=_divisor(num_examples),
            num_steps=self.num_steps,
            learning_rate=self.learning_rate,
            **own,
        )


def one_run(
    setup: Setup,
    algorithm: str,
    *,
    epsilon: float,
    num_canaries: int,
    num_guesses: int,
    num_runs: int,
    advance: Callable[[int], None] = lambda count: None,
) -> list[dict[str, Any]]:
    """Audits several runs, each by itself, with canaries included by its own coins.

    Args:
        setup: the training.
        algorithm: "dp_sgd" or "noisy_sgd".
        epsilon: that DP-SGD claims; it fixes the noise of both algorithms.
        num_canaries: m.
        num_guesses: r, fixed before the runs.
        num_runs: at least 2: the others tell what loss to expect of a canary, whatever its coin.
        advance: called with 1 after every run. Defaults to doing nothing.

    Returns:
        One line per run: the claim, the bound, its provable maximum, and the attacks on membership.
    """
    images = canaries.add(bundled.load("digits", train_size=setup.num_examples), num_canaries, setup.seed)
    canary = images.train_images[-num_canaries:], images.train_labels[-num_canaries:]
    base = config.Config(
        model=config.Model(model="mlp", hidden=(setup.hidden,)),
        training=setup.training(algorithm, epsilon, images.num_train_examples),
        run=config.Run(seed=setup.seed, eval_every=setup.num_steps, checkpoint_minutes=float("inf")),
    )
    losses, weights, coins, claims, objects = [], [], [], [], None
    for _ in range(num_runs):
        settings = base
        if algorithm == "noisy_sgd":
            settings = dataclasses.replace(
                base, training=dataclasses.replace(base.training, noise_seed=_secret_number())
            )
        coins.append(one.coins(num_canaries, keys.secret()))
        if objects is None:
            objects = builders.build(settings, images=images)
            gradients = _gradients(objects.model, *canary, setup.l2_norm_clip if algorithm == "dp_sgd" else None)
        else:
            builders.restart(objects, settings)
        data = canaries.included(images, coins[-1])
        claims.append(_train(dataclasses.replace(objects, images=data), settings))
        losses.append(_losses(objects.model, *canary))
        weights.append(_flat([weight.numpy() for weight in objects.model.trainable_weights]))
        advance(1)
    losses, weights, coins = np.array(losses), np.array(weights), np.array(coins)
    scores = _scores(setup, base.training, gradients, weights)
    return [
        {
            "audit": "one run",
            "algorithm": algorithm,
            "epsilon": epsilon,
            "run": run,
            "claimed_epsilon": claims[run],
            **_audited(setup, scores[run], coins[run], num_guesses),
            **_attacked(losses, coins, run),
        }
        for run in range(num_runs)
    ]


def many_runs(
    setup: Setup,
    algorithm: str,
    *,
    epsilon: float,
    num_trials: int,
    advance: Callable[[int], None] = lambda count: None,
) -> dict[str, Any]:
    """Audits a tiny network by many runs of one step, every other one of them with a canary.

    Args:
        setup: the training, apart from its images, its network and its steps.
        algorithm: "dp_sgd" or "noisy_sgd".
        epsilon: as in `one_run`.
        num_trials: runs; the first tenth of them chooses the threshold.
        advance: called with the number of runs that were made since the last call. Defaults to doing nothing.

    Returns:
        A line with the claim, the bound and its provable maximum.

    Raises:
        ValueError: for a setup with `noise_correlation`.
    """
    if setup.noise_correlation is not None:
        raise ValueError(
            "`noise_correlation` must be None for many runs, which would share their draws. "
            f"Received: noise_correlation={setup.noise_correlation!r}"
        )
    images = canaries.add(bundled.load("digits", train_size=_TINY_EXAMPLES), 1, setup.seed)
    setup = dataclasses.replace(setup, num_steps=1)
    settings = config.Config(
        model=config.Model(model="mlp", hidden=_TINY_HIDDEN),
        training=setup.training(algorithm, epsilon, images.num_train_examples),
        run=config.Run(seed=setup.seed),
    )
    objects = builders.build(settings, images=images)
    trials = _trials(setup, objects.model, images)
    # As many runs have the canary as do not.
    included = np.arange(num_trials) % 2 == 0
    scores = np.empty(num_trials)
    for first in range(0, num_trials, _TRIALS_AT_A_TIME):
        block = slice(first, min(first + _TRIALS_AT_A_TIME, num_trials))
        objects.model.optimizer.rekey(None if algorithm == "dp_sgd" else _secret_number())
        scores[block] = -trials(tf.constant(included[block])).numpy()
        advance(block.stop - first)
    found = many.audit(
        scores, included, setup.delta, num_calibration_runs=num_trials // 10, confidence=setup.confidence
    )
    claim = builders.privacy_statement(settings, objects.model.optimizer, images.num_train_examples)
    return {
        "audit": "many runs",
        "algorithm": algorithm,
        "epsilon": epsilon,
        "claimed_epsilon": claim.epsilon,
        "num_trials": num_trials,
        **found,
    }


def _train(objects: builders.RunObjects, settings: config.Config) -> float:
    """Makes one recorded run, whose record with its noise key is not kept; returns the epsilon that it claims."""
    with tempfile.TemporaryDirectory() as folder:
        where = dataclasses.replace(settings.run, run_dir=str(pathlib.Path(folder) / "run"))
        with recorded_run.started(objects, dataclasses.replace(settings, run=where)) as run:
            recorded_run.train(run)
            return run.privacy.epsilon


def _losses(model, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The cross entropy of every canary, in float64: what one canary changes is little."""
    logits = model(tf.constant(images), training=False).numpy().astype(np.float64)
    return -special.log_softmax(logits, axis=1)[np.arange(len(labels)), labels]


def _gradients(model, images: np.ndarray, labels: np.ndarray, l2_norm_clip: float | None) -> np.ndarray:
    """G, the gradient of every canary at the current weights, [m, d]; clipped if there is a bound."""
    weights = [weight.value for weight in model.trainable_weights]

    def gradient(example):
        image, label = example
        with tf.GradientTape() as tape:
            loss = model.per_example_losses(label[None], model(image[None], training=True))
        return tape.gradient(loss, weights)

    @tf.function(autograph=False, reduce_retracing=True)
    def gradients(images, labels):
        return tf.vectorized_map(gradient, (images, labels))

    parts = []
    for first in range(0, len(labels), _GRADIENTS_AT_A_TIME):
        part = slice(first, first + _GRADIENTS_AT_A_TIME)
        found = gradients(tf.constant(images[part]), tf.constant(labels[part]))
        parts.append(np.concatenate([each.numpy().reshape(len(labels[part]), -1) for each in found], axis=1))
    found = np.concatenate(parts)
    if l2_norm_clip is not None:
        found *= np.minimum(1, l2_norm_clip / np.linalg.norm(found, axis=1, keepdims=True))
    return found


def _scores(setup: Setup, training: config.Training, gradients: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The estimated coins of every run, [runs, m]: G (G' G + lambda I)^-1 applied to the change of the weights."""
    count, size, steps = len(weights), training.batch_size, setup.num_steps
    differences = (weights.sum(axis=0) - weights) / (count - 1) - weights
    changes = differences * size / (setup.learning_rate * steps)
    # Noise over signal, both as variances: a coin has 1/4, and the mean of the other runs has noise of its own.
    correlation = setup.noise_correlation
    coefficients = (1.0,) if correlation is None else builders.noise(correlation).coefficients
    penalty = 4 * (training.noise_std * size / steps) ** 2 * toeplitz.prefix_variances(coefficients, steps)[-1]
    gram = gradients.T @ gradients
    gram[np.diag_indices_from(gram)] += penalty
    factor = linalg.cho_factor(gram.astype(np.float64), overwrite_a=True)
    return (gradients @ linalg.cho_solve(factor, changes.T).astype(gradients.dtype)).T


def _flat(arrays: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([array.ravel() for array in arrays]).astype(np.float64)


def _audited(setup, scores, coins, num_guesses) -> dict[str, Any]:
    guessed = one.guesses(scores, num_guesses)
    correct, count = one.num_correct(guessed, coins), len(coins)
    options = {"delta": setup.delta, "confidence": setup.confidence}
    return {
        "num_canaries": count,
        "num_guesses": num_guesses,
        "correct": correct,
        "epsilon_lower_bound": one.epsilon_lower_bound(count, num_guesses, correct, **options),
        "largest_bound": one.largest_bound(count, num_guesses, **options),
    }


def _attacked(losses, coins, run) -> dict[str, float]:
    others = np.arange(len(losses)) != run
    attacks = {
        "loss_threshold": membership.loss_threshold(losses[run]),
        "likelihood_ratio": membership.likelihood_ratio(losses[run], losses[others], coins[others]),
    }
    found = {}
    for name, scores in attacks.items():
        found[f"{name}_auc"] = membership.auc(scores, coins[run])
        for rate in _FALSE_POSITIVE_RATES:
            found[f"{name}_tpr_at_{rate:g}"] = membership.true_positive_rate(scores, coins[run], rate)
    return found


def _trials(setup: Setup, model, images: bundled.ImageSet) -> Callable[[tf.Tensor], tf.Tensor]:
    """Whole runs from the initial weights in one compiled function: from the canary's coins to its final losses.

    The steps are counted on from run to run, so that no two runs share their noise.
    """
    model.prepare()
    initial = [tf.constant(variable.numpy()) for variable in model.variables]
    x, y = tf.constant(images.train_images), tf.constant(images.train_labels)

    def trial(coin):
        for variable, value in zip(model.variables, initial, strict=True):
            variable.assign(value)
        mask = tf.concat([tf.ones([_TINY_EXAMPLES], tf.bool), coin[None]], axis=0)
        for _ in range(setup.num_steps):
            model.accumulate(x, y, mask=mask)
            model.finish()
        return model.per_example_losses(y[-1:], model(x[-1:], training=False))[0]

    @tf.function(autograph=False, reduce_retracing=True)
    def trials(coins):
        return tf.map_fn(trial, coins, fn_output_signature=tf.float32, parallel_iterations=1)

    return trials


def _divisor(number: int) -> int:
    """The largest divisor up to a size, for microbatches; the number itself where they would be tiny."""
    found = next(size for size in range(min(number, _LARGEST_MICROBATCH), 0, -1) if number % size == 0)
    return found if found >= _SMALLEST_MICROBATCH else number


def summary(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines of one audit, algorithm and epsilon as one: the range of the bounds, and how many reach the epsilon."""
    found = []
    for key in dict.fromkeys((line["audit"], line["algorithm"], line["epsilon"]) for line in lines):
        case = [line for line in lines if (line["audit"], line["algorithm"], line["epsilon"]) == key]
        bounds = [line["epsilon_lower_bound"] for line in case]
        found.append(
            {
                "audit": key[0],
                "algorithm": key[1],
                "epsilon": key[2],
                "count": len(case),
                "below": sum(bound < key[2] for bound in bounds),
                "lowest": min(bounds),
                "highest": max(bounds),
                "largest_bound": min(line["largest_bound"] for line in case),
            }
        )
    return found


def _secret_number() -> int:
    return int.from_bytes(keys.secret(), "little")
