"""What one level shows: figures, verdict, steadiness, cost."""
