"""The models that can be built: one file each, listed here."""

from seqrec_export.models import caser, gru4att, mlink, sasrec, two_tower

MODELS = {m.MODEL.name: m.MODEL for m in (gru4att, two_tower, mlink, caser, sasrec)}
