"""Speed, memory and size of deployed bundles, side by side with peers; see `__main__`."""
