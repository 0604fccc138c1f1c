"""A draft becomes bytes: one writer for each format, evaluation of expressions, durable replacement of files."""
