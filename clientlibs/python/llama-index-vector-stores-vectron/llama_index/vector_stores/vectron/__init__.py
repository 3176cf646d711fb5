"""Vectron as a LlamaIndex vector store."""
from .base import VectronVectorStore

__all__ = ["VectronVectorStore"]
