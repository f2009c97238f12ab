"""`facerecon infer`."""
