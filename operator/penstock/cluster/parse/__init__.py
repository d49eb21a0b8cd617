"""From what the API server sent to the words of the domain. The only place, beside `core.manifests`, that knows
raw shapes.
"""
