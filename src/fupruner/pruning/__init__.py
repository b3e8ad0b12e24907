"""Pruning: which channels live and die together, what closing them costs and saves, when they close, and how they are cut."""
