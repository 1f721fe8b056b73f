"""Figures drawn from recorded runs."""
