"""Two deployments on this machine that do the same job: superswarm's programs, and plain Flower's."""
