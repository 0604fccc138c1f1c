"""One module for each sentence that the tool can say. A verb takes plain arguments and returns a ``Report``."""
