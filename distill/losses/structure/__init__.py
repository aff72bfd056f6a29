"""Losses that search or shape the student's structure; none compares with a teacher."""
