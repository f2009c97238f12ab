"""The only package that sees the whole chain: training, evaluation and reconstruction."""
