"""Real images, decoys over them, and the user's own folders."""
