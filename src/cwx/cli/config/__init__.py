"""Configurations, composed and checked before anything heavy is imported."""
