"""What stands between the rooms: one step's result as the next one's input."""

from __future__ import annotations

from functools import partial

from seqrec_export.clients.python import Client
from seqrec_export.contract import Graph
from seqrec_export.verification.gate import Extra, Provider


def on_triton(client: Client) -> Extra:
    """For `verify`: the graphs as a Triton serves them. Raises SeqrecError if none answers."""

    def provider(graph: Graph) -> Provider:
        client.probe(graph.name)
        return Provider(
            name=f"Triton at {client.url}",
            answer=partial(client.infer, graph.name),
            tolerance=graph.tolerance,
        )

    return provider
