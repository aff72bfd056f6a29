"""Files that are written whole, and records that reveal when they were altered."""
