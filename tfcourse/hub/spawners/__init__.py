"""What a learner's server is: a process, a container or a pod, and what it may use."""
