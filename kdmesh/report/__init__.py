"""What a person reads: live display, tables, plan pages."""
