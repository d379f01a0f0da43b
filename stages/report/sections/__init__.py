"""The sections of a report, one a file: a study -> what is said of it."""
