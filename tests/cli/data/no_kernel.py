"""A script that calls no kernel."""

print("nothing to simulate")
