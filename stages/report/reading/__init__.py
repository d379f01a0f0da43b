"""What runs and others have left on disk, read as a stranger's."""
