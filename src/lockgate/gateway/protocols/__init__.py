"""What clients speak: one module for each protocol. How a request is read and bounded, forwarded, and its usage found.

``dialects.py`` lists them, ``passages.py`` says how each gets to each kind of upstream.
"""
