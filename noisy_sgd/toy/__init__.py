"""The toy problems, trained: a fast simulation that equals the optimizer's steps, and the same under Keras."""
