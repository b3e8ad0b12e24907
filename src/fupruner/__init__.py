"""FuPruner: fusion-catalyzed pruning of trained convolutional networks."""

__version__ = "0.1.0"
