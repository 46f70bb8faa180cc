"""loadbench: a load tester for local and self-hosted language models."""

__version__ = "0.1.0"
