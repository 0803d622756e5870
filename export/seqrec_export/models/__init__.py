"""The models that can be built: one file each, listed here."""

from seqrec_export.models import sasrec

MODELS = {m.MODEL.name: m.MODEL for m in (sasrec,)}
