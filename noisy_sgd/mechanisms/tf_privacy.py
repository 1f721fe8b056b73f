"""The only importer of tensorflow-privacy, or of its stand-ins.

tensorflow-privacy cannot be installed on Python 3.12 and newer; there the classes of `stand_ins` take its place. The
Python version alone decides, so that a broken installation on an older Python is an error.

`import tensorflow_privacy` pulls in parts of TensorFlow that no longer exist. Its own switch, set before the first
import, makes the package empty; its modules then import by full path.

    from noisy_sgd.mechanisms import tf_privacy
    class Query(tf_privacy.gaussian_query.GaussianSumQuery): ...

Covered by tests/mechanisms/stand_ins_test.py.
"""

import sys

if sys.version_info >= (3, 12):
    from noisy_sgd.mechanisms.stand_ins import dp_query, gaussian_query, quantile_adaptive_clip_sum_query
else:
    sys.skip_tf_privacy_import = True

    from tensorflow_privacy.privacy.dp_query import (
        dp_query,
        gaussian_query,
        quantile_adaptive_clip_sum_query,
    )

__all__ = ["dp_query", "gaussian_query", "quantile_adaptive_clip_sum_query"]
