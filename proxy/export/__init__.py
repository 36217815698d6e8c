"""What the log holds, as files that other programs take."""
