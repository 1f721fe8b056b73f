"""What a run of a toy problem records: losses, distances and integrals on a logarithmic grid, and where runs diverged.

records = trajectories.Records(setting, trajectories.logarithmic_grid(num_steps), reference)
records.record(step, weights)                # before the updates from `step` on; keeps what the grid asks for
records.add(step, squares, normals, weights)    # after them
trajectory = records.trajectory(weights)
"""

import dataclasses

import numpy as np

from noisy_sgd import checks

# Losses that grow by this factor do not come back: a diverging step multiplies the weights by more than themselves.
_DIVERGED = 1e6


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trajectory:
    """What was recorded. K recorded steps, R runs; NaN from where a run diverged.

    Attributes:
        steps: [K] updates done, on a logarithmic grid from 0.
        loss: [K, R], the full-batch loss.
        squared_distance: [K, R], |beta - reference|^2; NaN without a reference.
        loss_integral: [K, R], gamma times the sum of the losses at which updates were made.
        weights: [R, 2, d] or [R, d], at the end.
        accumulated_noise: [R, d], sum of gamma sigma sqrt(L) Z (r_inf before its projection) where noise vanishes and
            is shared; else NaN.
        diverged_at: [R], first step whose loss was not finite or a million times the initial; -1 for none.
    """

    steps: np.ndarray
    loss: np.ndarray
    squared_distance: np.ndarray
    loss_integral: np.ndarray
    weights: np.ndarray
    accumulated_noise: np.ndarray
    diverged_at: np.ndarray

    @property
    def diverged(self) -> np.ndarray:
        """[R], whether the run diverged."""
        return self.diverged_at >= 0


def logarithmic_grid(num_steps, points_per_decade=20):
    """Steps 0, 1, ... spaced evenly in their logarithm, the last one included.

    Args:
        num_steps: the last step.
        points_per_decade: Defaults to 20.

    Returns:
        Increasing integers.

    Raises:
        ValueError: for fewer than one step.
    """
    checks.at_least("num_steps", num_steps, 1)
    count = int(np.ceil(points_per_decade * np.log10(num_steps))) + 1
    return np.unique(np.concatenate([[0], np.rint(np.geomspace(1, num_steps, count)).astype(np.int64)]))


class Records:
    """What a trajectory consists of, while it is being run.

    Args:
        setting: a `Setting`.
        grid: increasing steps at which to record.
        reference: beta* [d], or None.
    """

    def __init__(self, setting, grid, reference):
        self._setting, self._reference = setting, reference
        self._grid = np.asarray(grid, dtype=np.int64)
        runs, count = setting.num_runs, len(self._grid)
        self._loss, self._distance, self._integrals = np.full((3, count, runs), np.nan)
        self._integral, self._diverged_at = np.zeros(runs), np.full(runs, -1)
        self._limit = _DIVERGED * np.sum(self._residual(setting.initial) ** 2, axis=1)
        self._noise = np.zeros((runs, setting.dimension))

    def stops(self, first, last):
        """Where to stop between two steps in order to record: the grid's steps inside, and the last."""
        inside = self._grid[(self._grid > first) & (self._grid < last)]
        return [*inside.tolist(), last]

    def record(self, step, weights):
        """Writes down the state after `step` updates, where the grid wants it; weights [R, 2, d] or [R, d]."""
        for row in np.flatnonzero(self._grid == step):
            self._loss[row] = np.sum(self._residual(weights) ** 2, axis=1) / self._setting.loss_divisor
            self._integrals[row] = self._integral
            if self._reference is not None:
                self._distance[row] = np.sum((self._setting.predictor(weights) - self._reference) ** 2, axis=1)

    def add(self, step, squares, normals, weights):
        """Accounts for updates made from `step` on, at |r|^2 = squares [steps, R]; ends diverged runs by NaN weights.

        Returns whether a run ended.
        """
        setting = self._setting
        self._integral += setting.step_size / setting.loss_divisor * np.sum(squares, axis=0)
        if setting.noise_scale.any() and (normals is None or normals.ndim != 3):
            self._noise[:] = np.nan
        elif normals is not None:
            # 2 sqrt(L) = |r| / sqrt(n) in a diagonal linear network.
            scale = 0.5 * setting.step_size * setting.noise_scale / np.sqrt(len(setting.targets))
            self._noise += np.einsum("tr,trd->rd", scale * np.sqrt(squares), normals)
        beyond = ~(squares <= self._limit)
        fresh = beyond.any(axis=0) & (self._diverged_at < 0)
        if fresh.any():
            self._diverged_at[fresh] = step + np.argmax(beyond, axis=0)[fresh]
            weights[fresh] = self._noise[fresh] = np.nan
            self._integral[fresh] = np.nan
        return bool(fresh.any())

    def trajectory(self, weights):
        """The finished trajectory."""
        return Trajectory(
            steps=self._grid,
            loss=self._loss,
            squared_distance=self._distance,
            loss_integral=self._integrals,
            weights=np.array(weights, order="C"),
            accumulated_noise=self._noise,
            diverged_at=self._diverged_at,
        )

    def _residual(self, weights):
        return self._setting.predictor(weights) @ self._setting.features.T - self._setting.targets
