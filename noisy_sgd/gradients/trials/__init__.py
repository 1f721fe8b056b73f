"""What is refused because a trial on synthetic inputs shows that a model or a loss mixes examples."""
