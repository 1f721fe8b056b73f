"""What the rules of several layers share."""
