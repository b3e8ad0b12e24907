"""A run as something that lasts: its folder, its journal, its checkpoints, and how it goes on after it was cut off."""
