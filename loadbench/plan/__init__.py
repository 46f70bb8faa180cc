"""What will be done: the scenario, the load of each level, arrivals, prompts. No I/O but reading files."""
