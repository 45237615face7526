"""The built-ins, offered through the same hooks as any plugin."""
