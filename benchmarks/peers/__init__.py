"""Tuned classical peers: ``ranking`` and ``retrieval`` measure each under one budget and keep what they found."""

from benchmarks.peers.rankers import ranking
from benchmarks.peers.retrievers import retrieval
from benchmarks.peers.search import FULL, QUICK, Budget, Peer, folder

__all__ = ["FULL", "QUICK", "Budget", "Peer", "folder", "ranking", "retrieval"]
