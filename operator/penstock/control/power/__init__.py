"""Keeping every domain within its budget: shapes, ladder, caps, sheds, and what is told of them."""
