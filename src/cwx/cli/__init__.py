"""The command line. Imports no torch before a study starts."""
