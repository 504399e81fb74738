"""Which datasets there are: one YAML card each, and the small code that loads, finds and checks cards.

    import wellkit
    card = wellkit.catalog.get("turbulent_radiative_layer_2D")
    card.resolution, card.trajectories, card.components()

Cards come from three places: those that ship with wellkit, those below the paths in `$WELLKIT_CATALOG`, and
those registered in this process. A name belongs to one card; a second one of that name is refused.
"""

if __name__ != "wellkit.catalog":
    raise ImportError("import this package as wellkit.catalog, not as catalog")

# The folder of cards is a package with the name of a function here. Importing it first keeps the import
# system from putting the package in the function's place later.
import wellkit.catalog.cards  # noqa: F401  # isort: skip
from wellkit.catalog.finding import search
from wellkit.catalog.registry import cards, get, names, register, register_folder

__all__ = ["cards", "get", "names", "register", "register_folder", "search"]
