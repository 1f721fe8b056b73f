"""A recorded run: from a configuration to a trained model, with checkpoints and resumption."""
