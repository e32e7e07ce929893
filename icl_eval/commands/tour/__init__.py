"""The tour: one prompt generated in every way there is, side by side, with what each way costs.

meters     how many tokens a network was fed, and when each new one was there
ways       the greedy ways: all at once, the whole pipeline for every token, by hand with a cache, our stream
tours      the tour as a whole: draws, ways, tour.json
plotting   cost against length
page       what the terminal shows
"""
