"""Answers for programs and people: the HTTP server, the web page, and what both a page and a terminal talk to."""
