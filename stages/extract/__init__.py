"""Stage one: image -> face crop -> frozen root -> latent, once per data set and root."""
