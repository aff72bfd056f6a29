"""The same network with other numbers of channels: which of them belong together, and what any width costs."""
