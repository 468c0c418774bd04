"""Backdoors: attack success, revealed trigger, detection of poisoned images (CWX, §5)."""
