"""What the theory refuses: empty designs, wrong shapes, numbers outside an equation's domain.

features, targets = validation.design(features, targets)    # float64 arrays [n, d] and [n], or a ValueError
"""

import numpy as np


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
            f"`targets` must have one entry a row of `features`, shape {features.shape[:1]}. "
            f"Received: shape={targets.shape}"
        )
    if not np.isfinite(targets).all():
        raise ValueError("`targets` must be finite. Received: an array with NaN or infinity")
    return features, targets


def positive(name, value):
    """A scalar or array that is finite and above 0, as float64."""
    array = np.asarray(value, dtype=np.float64)
    if not (np.isfinite(array).all() and (array > 0).all()):
        raise ValueError(f"`{name}` must be positive and finite. Received: {name}={value}")
    return array


def non_negative(name, value):
    """A scalar or array that is finite and at least 0, as float64."""
    array = np.asarray(value, dtype=np.float64)
    if not (np.isfinite(array).all() and (array >= 0).all()):
        raise ValueError(f"`{name}` must be at least 0 and finite. Received: {name}={value}")
    return array


def count(name, value):
    """An integer of at least 1."""
    if isinstance(value, bool) or int(value) != value or value < 1:
        raise ValueError(f"`{name}` must be an integer of at least 1. Received: {name}={value}")
    return int(value)


def per_coordinate(name, value, dimension):
    """A positive scalar or [d] vector, spread over d coordinates."""
    array = positive(name, value)
    if array.shape not in ((), (dimension,)):
        raise ValueError(f"`{name}` must be a scalar or have shape ({dimension},). Received: shape={array.shape}")
    return np.broadcast_to(array, (dimension,))
