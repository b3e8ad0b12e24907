"""Sweeps: many runs with different options, and the networks among them that no other one beats."""
