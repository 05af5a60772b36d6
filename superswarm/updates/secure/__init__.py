"""Secure sums: what the members' updates add up to, and nothing about a single one (docs/secure-sums.md)."""
