"""Where the families' gradients collide on the parameters that they share."""
