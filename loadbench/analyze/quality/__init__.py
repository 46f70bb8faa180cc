"""Ratings of responses, and the choice of a model."""
