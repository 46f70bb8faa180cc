"""What every other room needs: units, errors and the clock."""
