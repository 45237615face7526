"""What a training loop of one's own takes from kdmesh: targets from the store. See docs/store.md."""
