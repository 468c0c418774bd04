"""Composes and checks configurations, without importing torch."""
