"""Runs of the four arms from one initialization, runs that switch from one arm to another, and the lines between ends.

    trainers = Trainers(network, batch_size=64, l2_norm_clip=4.0, noise_std=0.02, ema_decay=0.98)
    run = Group(trainers, data, seed=3, rates=rates, num_steps=1_500)
    run.whole("plain").measured["accuracy"]
    run.switched("noise_clip", "plain", 0.5)["position"]    # 0: ends where SGD ends; 1: where DP-SGD ends

All runs of a group have the same training set, initialization, order and noise.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from noisy_sgd.studies.laboratory import arms, directions, images, networks, training

SWITCHES = (0.25, 0.5, 0.75)
# Where a run is looked at, in parts of its steps; they contain the switches.
LOOKS = tuple(number / 8 for number in range(8))
LINE = tuple(number / 10 for number in range(11))


class Trainers:
    """The trainers of the arms, each compiled when it is first used.

    Args:
        network: from a seed to the network with the initialization of that seed.
        batch_size: B.
        l2_norm_clip: C, of the arms that clip.
        noise_std: standard deviation of the noise on the mean gradient, of the arms with noise.
        ema_decay: of the weights' average.
    """

    def __init__(
        self, network: networks.Builder, *, batch_size: int, l2_norm_clip: float, noise_std: float, ema_decay: float
    ):
        def trainer(arm: str) -> training.Trainer:
            optimizer = arms.optimizer(arm, batch_size=batch_size, noise_std=noise_std, l2_norm_clip=l2_norm_clip)
            return training.Trainer(network, optimizer, batch_size=batch_size, ema_decay=ema_decay)

        self.of = functools.cache(trainer)
        self.directions = functools.cache(
            lambda arm: directions.Directions(self.of(arm).model, l2_norm_clip, noise_std)
        )


@dataclasses.dataclass(frozen=True)
class Whole:
    """A run of one arm: what was measured, its last weights, and its weights at the switches."""

    measured: dict[str, Any]
    end: Sequence[np.ndarray]
    at_switches: Mapping[float, Sequence[np.ndarray]]


class Group:
    """The runs of one seed.

    Args:
        trainers: of the arms.
        data: of the seed.
        seed: of initialization, order and noise.
        rates: the learning rate of each arm.
        num_steps: of every run.
    """

    def __init__(self, trainers: Trainers, data: images.Data, *, seed: int, rates: Mapping[str, float], num_steps: int):
        self._trainers, self._seed, self._rates, self._num_steps = trainers, seed, rates, num_steps
        self._train = data.train.images, data.train.labels
        self._judged = data.judged.images, data.judged.labels
        self.whole = functools.cache(self._whole)

    def _whole(self, arm: str) -> Whole:
        """The run of an arm, with `LOOKS` along the way."""
        trainer = self._started(arm)
        beginning, looks, at_switches = _flat(trainer.weights), [], {}
        for part in LOOKS:
            trainer.advance(self._step(part) - trainer.step)
            looks.append(
                {
                    "part": part,
                    "accuracy": trainer.evaluate(*self._judged).accuracy,
                    "train_loss": trainer.evaluate(*self._train).loss,
                    "distance": float(np.linalg.norm(_flat(trainer.weights) - beginning)),
                    **self._trainers.directions(arm)(*self._train),
                }
            )
            if part in SWITCHES:
                at_switches[part] = trainer.weights
        trainer.advance(self._num_steps - trainer.step)
        last, fitted = trainer.evaluate(*self._judged), trainer.evaluate(*self._train)
        with trainer.average.applied(trainer.model):
            averaged = trainer.evaluate(*self._judged)
        measured = {
            "accuracy": last.accuracy,
            "test_loss": last.loss,
            "averaged_accuracy": averaged.accuracy,
            "train_loss": fitted.loss,
            "train_accuracy": fitted.accuracy,
            "distance": float(np.linalg.norm(_flat(trainer.weights) - beginning)),
            "looks": looks,
        }
        return Whole(measured, trainer.weights, at_switches)

    def switched(self, first: str, then: str, switch: float) -> dict[str, Any]:
        """A run that trains with one arm up to a switch, and then with the other, each with its own learning rate.

        Returns:
            `first`, `then`, `switch`; `position` of its end along the line from SGD's end (0) to the end of the other
            arm (1), by orthogonal projection; `accuracy` and `train_loss`.
        """
        # The whole runs use the same trainers, so they come first.
        start = _flat(self.whole(arms.PLAIN).end)
        way = _flat(self.whole(then if first == arms.PLAIN else first).end) - start
        trainer = self._started(then, self.whole(first).at_switches[switch], self._step(switch))
        trainer.advance(self._num_steps - trainer.step)
        return {
            "first": first,
            "then": then,
            "switch": switch,
            "position": float(np.dot(_flat(trainer.weights) - start, way) / np.dot(way, way)),
            "accuracy": trainer.evaluate(*self._judged).accuracy,
            "train_loss": trainer.evaluate(*self._train).loss,
        }

    def line(self, arm: str) -> dict[str, Any]:
        """Losses at `LINE` between SGD's end (0) and that of another arm (1)."""
        start, end = self.whole(arms.PLAIN).end, self.whole(arm).end
        trainer, losses = self._trainers.of(arms.PLAIN), {"train_loss": [], "test_loss": []}
        for part in LINE:
            for variable, plain, other in zip(trainer.model.variables, start, end, strict=True):
                variable.assign((1 - part) * plain + part * other)
            losses["train_loss"].append(trainer.evaluate(*self._train).loss)
            losses["test_loss"].append(trainer.evaluate(*self._judged).loss)
        return {"to": arm, **losses}

    def _started(self, arm, weights=None, step=0) -> training.Trainer:
        trainer = self._trainers.of(arm)
        rate = self._rates[arm]
        trainer.start(*self._train, seed=self._seed, learning_rate=rate, weights=weights, step=step)
        return trainer

    def _step(self, part: float) -> int:
        return round(part * self._num_steps)


def _flat(weights: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.ravel(value) for value in weights]).astype(np.float64)
