"""What this folder has beside its rooms (tiles, ways to break constraints) can be imported in all of them."""
