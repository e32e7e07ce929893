"""Language models: where weights come from, what can be known without them, and loading them."""
