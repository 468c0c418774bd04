"""Whether a network was taught a backdoor, by comparison with clean networks."""
