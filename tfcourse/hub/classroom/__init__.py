"""A class's instructors and their announcements."""
