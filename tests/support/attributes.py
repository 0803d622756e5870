"""The attributes that the small models' items are filtered by."""

import pandas as pd

from seqrec_export.data.attributes import Attribute
from seqrec_export.data.interactions import Interactions
from seqrec_export.data.readers.item_tables import asked_attributes
from seqrec_export.training.run import Run


def attributes(run: Run, interactions: Interactions) -> tuple[Attribute, Attribute]:
    """One value an item, and up to three of them; every seventh item has none."""
    features = interactions.item_features
    assert features is not None
    rows = dict(zip(interactions.item_ids, range(len(features)), strict=True))
    items = run.vocabularies["items"].ids
    groups = [features["garment_group_name"].iloc[rows[item]] for item in items]
    tags = [
        [f"tag {n}" for n in (2, 3, 5) if i % n == 0] if i % 7 else [] for i in range(len(items))
    ]
    frame = pd.DataFrame({"item_id": items, "garment_group_name": groups, "tags": tags})
    found = asked_attributes(["garment_group_name", "tags"], items, items=frame)
    assert found is not None
    garment_group, of_tags = found.of(run.vocabularies["items"])
    return garment_group, of_tags
