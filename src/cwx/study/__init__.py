"""One study from the first expert to the page."""
