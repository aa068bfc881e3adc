"""Learners' servers (processes, containers or pods) and the resources that they can use."""
