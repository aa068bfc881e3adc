"""What instructors can do for their class: announcements and approvals."""
