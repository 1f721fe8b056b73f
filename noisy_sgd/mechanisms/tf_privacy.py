"""The one importer of tensorflow-privacy.

`import tensorflow_privacy` pulls in parts of TensorFlow that no longer exist. Its own switch, set before the first
import, makes the package empty; its modules then import by full path.

    from noisy_sgd.mechanisms import tf_privacy
    class Query(tf_privacy.gaussian_query.GaussianSumQuery): ...
"""

import sys

sys.skip_tf_privacy_import = True

from tensorflow_privacy.privacy.dp_query import (  # noqa: E402
    dp_query,
    gaussian_query,
    quantile_adaptive_clip_sum_query,
)

__all__ = ["dp_query", "gaussian_query", "quantile_adaptive_clip_sum_query"]
