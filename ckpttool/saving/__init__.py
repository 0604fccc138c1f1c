"""Saving and loading that lose nothing: in place of ``torch.save`` and ``torch.load``. torch is the caller's."""
