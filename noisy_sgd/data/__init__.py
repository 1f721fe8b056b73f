"""What is trained on: image sets, synthetic regressions, and the order in which examples are visited."""
