"""What the binaries share: endings, and measurements with a record."""
