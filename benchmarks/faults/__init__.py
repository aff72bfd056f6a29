"""Damaged files, killed runs, nonsense: each case ends in a right result or in an error that names the fault."""
