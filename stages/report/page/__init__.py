"""A report's content, and the forms it is written in."""
