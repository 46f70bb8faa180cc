"""What the server, its machine and its devices do meanwhile, sampled on the run's own clock."""
