"""Pages made from run directories. Imports no method."""
