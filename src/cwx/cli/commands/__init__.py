"""What `cwx <command>` does beside running studies: look at runs, pages and the store."""
