"""Labelled images: where they come from (`sources`) and how they are served (`module`)."""
