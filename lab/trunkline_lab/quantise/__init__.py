"""What the quantisation benchmark needs besides the exports: training on a rounded encoder, features of bare graphs."""
