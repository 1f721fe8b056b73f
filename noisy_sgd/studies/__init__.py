"""What is measured to answer a question: functions from problems to plain lines of numbers, without flags or files.

from noisy_sgd.studies import noise_threshold
lines = noise_threshold.measure(range(12))      # what a run directory records, and figures are drawn from
"""

from noisy_sgd import lazy

__getattr__, __dir__, __all__ = lazy.attach(__name__, {}, lazy.modules(__path__))
