"""Where agents live: what each costs is measured, and an assignment solved."""
