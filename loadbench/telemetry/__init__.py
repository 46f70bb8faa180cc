"""Telemetry of the server's process, its machine and its devices, sampled on the run's clock."""
