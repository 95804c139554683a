"""What a kernel may use: constructs, names, profiles, front ends."""
