"""Importing networks trained by other programs, from files that may be malicious."""
