"""What an instructor and a class do together."""
