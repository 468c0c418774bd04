"""The commands beside running studies: list runs, write pages, prune the store."""
