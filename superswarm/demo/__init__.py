"""The demo: a whole consortium on one machine, wired from the commands that real deployments use."""
