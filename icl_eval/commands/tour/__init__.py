"""The command `icl-eval tour`: completes one prompt in several ways and compares what they cost.

From what is measured to what is shown:

    meters         counts the tokens that a network is fed, and times each new token
    ways           four ways of greedy decoding
    tours          the whole tour: sampled continuations, greedy ways, tour.json
    plotting       plots cost against length
    terminal_view  prints the tour
"""
