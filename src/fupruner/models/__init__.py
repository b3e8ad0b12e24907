"""Built-in networks, and the resolver that turns a model's name or file into a module."""
