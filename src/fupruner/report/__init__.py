"""The report of a run: records first, the page after."""
