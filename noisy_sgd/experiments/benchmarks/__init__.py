"""What the benchmark binary times."""
