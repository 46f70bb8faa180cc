"""Results of other load testers as runs."""
