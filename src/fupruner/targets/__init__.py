"""Devices: file formats, runtimes that check and time the files, and models of what layers cost."""
