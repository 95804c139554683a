"""Parts of a transformer in one kernel."""
