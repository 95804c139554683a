"""What happened, shown: Perfetto traces and terminal tables."""
