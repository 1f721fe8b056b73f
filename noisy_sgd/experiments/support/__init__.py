"""What the binaries share: progress, endings, and measurements with a record."""
