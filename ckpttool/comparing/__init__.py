"""What changed between two checkpoints, told from descriptors and measured differences. Pure."""
