"""What a run leaves: its steps and checks, its page, and where a version came from."""
