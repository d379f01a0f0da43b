"""Stage two: learn tasks one after the other from cached latents, and measure."""
