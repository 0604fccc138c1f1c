"""What can be salvaged, sanitized or compacted: pure, from descriptors and measures to a draft and its reasons."""
