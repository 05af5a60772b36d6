"""Secure sums, measured: every way to add updates as members and an aggregator, in processes of their own."""
