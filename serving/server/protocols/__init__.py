"""What clients speak: each front turns requests of one protocol into calls of the data plane."""
