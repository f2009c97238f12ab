"""Images of reconstructions, registrations and topologies, and tables of training reports."""
