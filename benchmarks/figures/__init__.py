"""Tables and plots of what benchmarks recorded. Nothing here measures."""
