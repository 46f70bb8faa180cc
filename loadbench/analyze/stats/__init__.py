"""Intervals and tests that serve everywhere."""
