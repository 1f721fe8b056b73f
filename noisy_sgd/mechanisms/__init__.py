"""What is added to a clipped sum, and what it costs.

`Mechanism` is the interface. A `Recipe` makes a mechanism from an optimizer's arguments: `DPSGD(..., noise=MyRecipe())`
takes it. `AdaptiveClipping` learns the clip; `IndependentNoise` is DP-SGD's usual noise; `CorrelatedNoise` is
correlated over steps.
"""

from noisy_sgd import lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    {
        "AdaptiveClipping": "noisy_sgd.mechanisms.adaptive_clipping",
        "CorrelatedNoise": "noisy_sgd.mechanisms.correlated",
        "Draw": "noisy_sgd.mechanisms.mechanism",
        "GaussianSumQuery": "noisy_sgd.mechanisms.gaussian",
        "IndependentNoise": "noisy_sgd.mechanisms.gaussian",
        "Mechanism": "noisy_sgd.mechanisms.mechanism",
        "Recipe": "noisy_sgd.mechanisms.mechanism",
    },
)
