"""How a kind of layer yields the norms and sums of its per-example gradients."""
