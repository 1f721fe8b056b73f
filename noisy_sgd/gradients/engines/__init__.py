"""How per-example gradients are computed: one backward pass, a vectorized map, or the plain sum."""
