"""What a recipe may say: schema, loading, overriding, checking."""
