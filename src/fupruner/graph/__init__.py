"""The canonical graph: capture, edit, check, price and print. Only this package changes ``torch.fx`` graphs."""
