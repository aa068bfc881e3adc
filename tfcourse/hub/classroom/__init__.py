"""The instructors of a class, and the announcements that they make."""
