"""Commands for everybody: they wire members' and operators' programs together, or need neither."""
