"""Sequential recommenders from interaction logs to an answer from Triton.

    import seqrec_export as sx

    log = sx.read("movielens:ml-1m/ratings.dat")
    run = sx.train("sasrec", log, "runs/sasrec", dim=64)
    run.recommend([{"history_item_ids": ["1193"]}], k=10)
    sx.publish(sx.verify(sx.export(run)), "model_repository")

`__all__` is the promise; every other name may change. Nothing is imported before it is asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seqrec_export import testing
    from seqrec_export.api import (
        build,
        export,
        import_module,
        import_recbole,
        import_rectools,
        load,
        publish,
        recommend_all,
        train,
        verify,
    )
    from seqrec_export.clients.python import TLS, Client
    from seqrec_export.contract import Graph, Spec, Tolerance
    from seqrec_export.data import batches
    from seqrec_export.data.histories import Dataset
    from seqrec_export.data.interactions import Interactions
    from seqrec_export.data.readers import read
    from seqrec_export.data.readers.frames import from_frame
    from seqrec_export.data.vocabulary import PAD, UNKNOWN
    from seqrec_export.errors import SeqrecError
    from seqrec_export.evaluation import ranking
    from seqrec_export.exporting.embed import embed_items, embed_users
    from seqrec_export.exporting.exported import Exported
    from seqrec_export.exporting.list_files import join_lists
    from seqrec_export.in_process import Run
    from seqrec_export.models import wire
    from seqrec_export.models.model import Batch, Metric, Model
    from seqrec_export.models.retrieval import retrieval_graphs
    from seqrec_export.models.settings import Range, Settings, setting
    from seqrec_export.nn import layers, losses
    from seqrec_export.nn.item_search import Catalogue
    from seqrec_export.nn.ragged import Ragged, compact
    from seqrec_export.pipeline import Built, Verified
    from seqrec_export.repository.publish import Published
    from seqrec_export.serving.server import Server
    from seqrec_export.serving.server import start as serve

__all__ = [
    "PAD",
    "TLS",
    "UNKNOWN",
    "Batch",
    "Built",
    "Catalogue",
    "Client",
    "Dataset",
    "Exported",
    "Graph",
    "Interactions",
    "Metric",
    "Model",
    "Published",
    "Ragged",
    "Range",
    "Run",
    "SeqrecError",
    "Server",
    "Settings",
    "Spec",
    "Tolerance",
    "Verified",
    "batches",
    "build",
    "compact",
    "embed_items",
    "embed_users",
    "export",
    "from_frame",
    "import_module",
    "import_recbole",
    "import_rectools",
    "join_lists",
    "layers",
    "load",
    "losses",
    "publish",
    "ranking",
    "read",
    "recommend_all",
    "retrieval_graphs",
    "serve",
    "setting",
    "testing",
    "train",
    "verify",
    "wire",
]

# The names by the module that holds them.
_FROM = {
    "api": (
        "build",
        "export",
        "import_module",
        "import_recbole",
        "import_rectools",
        "load",
        "publish",
        "recommend_all",
        "train",
        "verify",
    ),
    "clients.python": (
        "TLS",
        "Client",
    ),
    "contract": (
        "Graph",
        "Spec",
        "Tolerance",
    ),
    "data.histories": ("Dataset",),
    "data.interactions": ("Interactions",),
    "data.readers": ("read",),
    "data.readers.frames": ("from_frame",),
    "data.vocabulary": ("PAD", "UNKNOWN"),
    "errors": ("SeqrecError",),
    "exporting.embed": ("embed_items", "embed_users"),
    "exporting.exported": ("Exported",),
    "exporting.list_files": ("join_lists",),
    "in_process": ("Run",),
    "models.model": (
        "Batch",
        "Metric",
        "Model",
    ),
    "models.retrieval": ("retrieval_graphs",),
    "models.settings": (
        "Range",
        "Settings",
        "setting",
    ),
    "nn.item_search": ("Catalogue",),
    "nn.ragged": (
        "Ragged",
        "compact",
    ),
    "pipeline": (
        "Built",
        "Verified",
    ),
    "repository.publish": ("Published",),
    "serving.server": (
        "Server",
        "serve",
    ),
}
_MODULES = {
    "batches": "data.batches",
    "layers": "nn.layers",
    "losses": "nn.losses",
    "ranking": "evaluation.ranking",
    "testing": "testing",
    "wire": "models.wire",
}
_PLACES = {name: module for module, names in _FROM.items() for name in names}
_CALLED = {"serve": "start"}  # in its own module


def __getattr__(name: str) -> Any:
    if name not in _PLACES | _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: Any = importlib.import_module(f"{__name__}.{_MODULES.get(name) or _PLACES[name]}")
    if name in _PLACES:
        value = getattr(value, _CALLED.get(name, name))
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
