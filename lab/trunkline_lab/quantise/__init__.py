"""What quantisation and a smaller vocabulary cost: the benchmark of exports with rounded weights."""
