"""Public data sets: their cards, the readers of their formats, what is in them."""
