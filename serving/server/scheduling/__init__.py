"""When models run: requests queue for each signature of a version, and a run takes what has queued."""
