"""Sources of labelled images: bundled, downloaded, or in folders of the user."""
