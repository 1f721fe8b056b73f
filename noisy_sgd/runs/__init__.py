"""A recorded run: from a configuration to a trained model, with checkpoints and resumption.

builders        a configuration -> images, network, optimizer, compiled steps
recorded_run    trains them, with a record that an interrupted run continues
checkpoints     the checkpoints of a run: save, load, list
"""

from noisy_sgd import lazy

__getattr__, __dir__, __all__ = lazy.attach(__name__, {}, ("builders", "checkpoints", "recorded_run"))
