"""What this folder has beside its rooms (builders of programs) can be imported in all of them."""
