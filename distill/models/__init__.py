"""Networks: built from recipe entries, filled with weights, traced, tapped and changed."""
