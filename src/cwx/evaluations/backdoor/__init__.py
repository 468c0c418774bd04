"""Backdoors: attack success, the revealed trigger, the poisoned images (CWX, §5)."""
