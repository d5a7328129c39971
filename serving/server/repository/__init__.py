"""Models and their versions: found, verified, loaded, swapped and unloaded."""
