"""An operator's commands for the hub in containers."""
