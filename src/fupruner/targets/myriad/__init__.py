"""Intel Neural Compute Stick and Stick 2: the vendor's compiler, and a model of what it makes of a network."""
