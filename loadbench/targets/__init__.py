"""The target of a test: finding it, listing its models, preparing and checking it."""
