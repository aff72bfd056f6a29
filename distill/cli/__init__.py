"""The command line: arguments in, tables and one clear line per error out."""
