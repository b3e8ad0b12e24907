"""Make ``python -m fupruner`` the same as the command ``fupruner``."""

from fupruner.cli import main

if __name__ == "__main__":
    main()
