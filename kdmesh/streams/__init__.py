"""Where samples come from: tables, splits, shards, streams, their order and views of them."""
