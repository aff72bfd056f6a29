"""What a network scores and how long it takes."""
