"""What a person should know of how a network was read, before believing what is said of it."""

from __future__ import annotations

from rich.console import Console

from toolkit.data.names import printable
from toolkit.networks.network import Network

NOTES = {"assumed": "assumed architecture", "dropped": "left out"}


def read_notes(network: Network) -> list[str]:
    """What a reader assumed and what it left out, a line each."""
    return [f"{word}: {network.metadata[key]}" for key, word in NOTES.items() if network.metadata.get(key)]


def show_notes(console: Console, network: Network) -> None:
    """What a reader assumed and what it left out, as kept in the network's metadata."""
    for line in read_notes(network):
        console.print(printable(line), highlight=False, markup=False)
