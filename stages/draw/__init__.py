"""Draw the embedded data set: real input for a house that may ship no real face."""
