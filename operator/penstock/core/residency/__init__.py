"""The law: from what people wrote to the place labels that a node must carry.

`iso` and `groups` read codes, `reading` reads what people wrote, `ceiling` makes one law of many demands, `terms`
compiles it to node affinity, and `annotations` writes it down where CEL reads it.
"""

from penstock.core.residency.iso import country_of
from penstock.core.residency.terms import Alternative, alternatives, codes, contradicts_itself, law

__all__ = ["Alternative", "alternatives", "codes", "contradicts_itself", "country_of", "law"]
