"""Output for people: tables on the terminal, and HTML pages."""
