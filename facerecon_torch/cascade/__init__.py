"""The path from crops and landmarks to a face: the cascade, its checkpoint, its export."""
