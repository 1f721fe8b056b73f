"""Binaries, one a question: parse flags, build, run, record."""
