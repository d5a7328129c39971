"""Which versions of which models are served: found, verified, loaded, swapped and unloaded."""
