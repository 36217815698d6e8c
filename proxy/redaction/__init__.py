"""What is not stored: credentials always, and what the settings name. Nothing here touches the bytes that pass."""
