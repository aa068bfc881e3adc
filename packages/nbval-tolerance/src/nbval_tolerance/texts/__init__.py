"""What a printed text holds: lines, numbers, kinds, and what says nothing. Pure functions."""
