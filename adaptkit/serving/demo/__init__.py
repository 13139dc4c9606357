"""The web page of `adaptkit demo`: a chat with media, and boxes drawn on pictures. Needs gradio."""
