"""Vectron as a LangChain vector store."""
from .vectorstores import VectronVectorStore

__all__ = ["VectronVectorStore"]
