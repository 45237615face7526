"""The base classes that plugins subclass. This room knows the file's specification and nothing of what is built in."""
