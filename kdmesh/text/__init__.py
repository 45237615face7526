"""Texts and transformers: tokenizers, chat templates, encoding, and models of the Hugging Face library."""
