"""The reference trainer: small enough to read in one sitting, and nothing that a resume needs is missing.

Read ``train.py`` first; ``state.py`` is what a checkpoint holds. torch is imported at the top of these files.
"""
