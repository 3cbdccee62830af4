"""Tasks from 8 and 16 labels a class in all, nothing else: ours beside build d62e5f2 and other libraries."""
