"""The line: recipe, data, teacher, student, compression hooks, exports, report."""
