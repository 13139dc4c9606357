"""A conversation to token ids and labels: templates, markup, vocabulary, boxes as text."""
