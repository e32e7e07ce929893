"""Language models: fetch their weights, read their cards without the weights, and load them."""
