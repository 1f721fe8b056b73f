"""The toy problems, trained: a fast simulation that equals the optimizer's steps, and the same under Keras.

settings        what a run is: problem, algorithm, step size, noise
simulation      many runs at once, in NumPy
step_by_step    the same with Keras models and `noisy_sgd.NoisySGD`
trajectories    what is recorded of the runs
"""

from noisy_sgd import lazy

__getattr__, __dir__, __all__ = lazy.attach(__name__, {}, ("settings", "simulation", "step_by_step", "trajectories"))
