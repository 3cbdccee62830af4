"""Benchmarks of speed and memory, side by side with peers: training, deployment, batches, near duplicates."""
