"""Prompts: wording, placement, model-specific conventions and token ids.

In the order in which a prompt is made:

    templates       instruction, demonstrations and question as separate blocks
    turns           the same as the turns of a chat
    channel         the channel form of a template: answers before their questions
    styles          random formats of one template (`template=varied`)
    chats           turns rendered with the model's own chat template, without losing any
    chat_templates  a chat template given by name, as a file or as text
    building        which side of the model gets which block, and what to do if a prompt is too long
    conventions     what a model requires besides the wording: prefixes, language codes, tokens
    token_ids       token ids that wait to be decoded, kept small
    tokenization    token ids of prompts and continuations
    shown_answers   the tokens of the demonstrations' answers in a prompt
"""
