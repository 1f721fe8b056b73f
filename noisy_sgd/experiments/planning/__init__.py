"""What a run would cost on devices that are not here: lowering, compilation, and arithmetic."""
