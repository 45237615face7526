"""Models behind OpenAI-compatible endpoints: what is sent, what comes back, what it may cost, and what is kept."""
