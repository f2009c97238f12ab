"""Face models: bilinear and linear, behind one interface, with HOSVD, gauge and native files."""
