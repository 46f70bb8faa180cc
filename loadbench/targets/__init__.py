"""What is being tested: where it is, which models it has, whether it answers."""
