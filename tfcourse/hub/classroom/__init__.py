"""What instructors and learners share: announcements, progress, assignments and grades."""
