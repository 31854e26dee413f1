"""A sample set drawn from seeds: creatures whose heads tell the classes apart and whose bodies are the larger part.

A plain class activation map fails on the set in the way that patch learning is meant to mend. The head has a shape, a
face and a colour of its class; the body, several times larger, only tends to a pattern and a hue, which other classes
wear too. A classifier can rely on heads alone, and its maps then leave the bodies out. Some heads are hidden behind a
bush, and the bodies of these creatures always wear the pattern of their class, so that a classifier can also learn from
bodies, as patches without a head require. Nothing that is drawn later (creatures, leaves) covers a bush.

Masks of the parts tell how much of heads and bodies is covered. Backgrounds, stones and leaves are the same for all
classes.
"""

from __future__ import annotations

from ppl.data.creatures.sample_set import CREATURE_PARTS, CREATURES, make_creatures
from ppl.data.creatures.scene import draw_scene

__all__ = ["CREATURES", "CREATURE_PARTS", "draw_scene", "make_creatures"]
