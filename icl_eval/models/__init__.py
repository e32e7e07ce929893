"""Language models: fetch their weights, read their cards without the weights, and load them.

Getting a model:

    specs         the strings that say where a model comes from
    weights       from any source to a local folder
    cards         what the configuration and the tokenizer say, before any weights are loaded
    loading       models, from a folder or from memory
    networks      a network that fits its files, with an adapter and quantization
    in_memory     identities of networks that were not loaded from files

In another form than their files:

    adapters      PEFT adapters, merged into the weights
    quantization  weights in fewer bits
    devices       layers on one device or on several
    attention     attention implementations, by name

Using a network safely:

    states        notices that a network has changed
    switching     attributes that are set for a moment and restored
    memory        free memory, and which errors say that it ran out
    quiet         less output from transformers
"""
