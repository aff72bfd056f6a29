"""The bytes of an artifact's file, and the arrays in it; nothing here needs PyTorch."""
