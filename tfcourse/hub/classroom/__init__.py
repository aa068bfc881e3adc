"""What instructors can do for their class."""
