"""What the theory refuses: empty designs, wrong shapes, numbers outside an equation's domain.

features, targets = validation.design(features, targets)    # float64 arrays [n, d] and [n], or a ValueError

Covered by tests/sde/least_squares_test.py and mirror_map_test.py.
"""

import numpy as np

from noisy_sgd import checks


def design(features, targets=None):
    """Features as a float64 matrix [n, d], with targets [n] where given; both finite, n and d at least 1."""
    features = np.asarray(features, dtype=np.float64)
    if features.ndim != 2 or 0 in features.shape:
        raise ValueError(
            f"`features` must be a matrix [n, d] with at least one row and one column. Received: shape={features.shape}"
        )
    if not np.isfinite(features).all():
        raise ValueError("`features` must be finite. Received: an array with NaN or infinity")
    if targets is None:
        return features
    targets = np.asarray(targets, dtype=np.float64)
    if targets.shape != features.shape[:1]:
        raise ValueError(
            f"`targets` must have one entry per row of `features`, shape {features.shape[:1]}. "
            f"Received: shape={targets.shape}"
        )
    if not np.isfinite(targets).all():
        raise ValueError("`targets` must be finite. Received: an array with NaN or infinity")
    return features, targets


def count(name, value):
    """An integer of at least 1; a float with an integer value counts, since NumPy's arithmetic may return one."""
    number = int(value) if isinstance(value, float | np.floating) and value.is_integer() else value
    return checks.count(name, number, constraint="must be an integer of at least 1")


def per_coordinate(name, value, dimension):
    """A positive scalar or [d] vector, broadcast to d coordinates."""
    array = checks.positive(name, value)
    if array.shape not in ((), (dimension,)):
        raise ValueError(f"`{name}` must be a scalar or have shape ({dimension},). Received: shape={array.shape}")
    return np.broadcast_to(array, (dimension,))
