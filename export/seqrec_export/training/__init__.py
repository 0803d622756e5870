"""From histories to a run folder."""
