"""Learners' servers (processes, containers or pods) and the resources that they may use."""
