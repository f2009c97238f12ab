"""`facerecon compare`: other systems beside ours, on the same images, landmarks and truth."""
