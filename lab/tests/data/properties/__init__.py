"""Properties of the readers of public data sets: what is written is read back, what is damaged is refused."""
