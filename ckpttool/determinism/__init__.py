"""Does interrupted, then resumed equal uninterrupted? Recorded, compared, and the cause named."""
