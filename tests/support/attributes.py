"""The attributes that the small models' items are filtered by."""

from seqrec_export.data.attributes import Attribute
from seqrec_export.data.interactions import Interactions
from seqrec_export.exporting.kept_attributes import attribute_of
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
    return (
        attribute_of("garment_group_name", [[group] for group in groups]),
        attribute_of("tags", tags),
    )
