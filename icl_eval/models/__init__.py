"""Language models: fetch their weights, read their cards without the weights, and load them.

Getting a model:

    weights    from any source to a local folder
    cards      what the configuration and the tokenizer say, before any weights are loaded
    loading    networks, from a folder or from memory
    in_memory  identities of networks that were not loaded from files

Using a network safely:

    states     notices that a network has changed
    switching  attributes that are set for a moment and restored
    memory     free memory, and which errors say that it ran out
    quiet      less output from transformers
"""
