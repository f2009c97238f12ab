"""The inputs of a run: where they are listed from, and how each is read."""
