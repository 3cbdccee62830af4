"""Training speed and memory, side by side with peers; see `__main__`."""
