"""Load plugins, each alone, and find what they offer by kind and name.

The environment switches them: ``KDMESH_PLUGINS=a,b`` loads only these (empty: none), ``KDMESH_DISABLE_PLUGINS=a,b`` all
but these, by the name of the plugin or of its distribution; ``KDMESH_PLUGINS_DIR`` is a folder of single-file plugins;
``KDMESH_STRICT_PLUGINS=1`` makes any problem an error; ``KDMESH_TRACE_PLUGINS=1`` prints every hook call to stderr.
"""

from kdmesh.plugins.current import BUILT_IN, carried, receive, registry
from kdmesh.plugins.faults import fault, heavy_imports, too_heavy
from kdmesh.plugins.finding import Registry
from kdmesh.plugins.kinds import COMMANDS, FACTORY, FOLDER, HEAVY, IMPORTED, IN_FILES, KINDS, NOUNS, SWITCHES
from kdmesh.plugins.record import BadOffer, PluginFile, PluginRecord

__all__ = [
    "BUILT_IN", "COMMANDS", "FACTORY", "FOLDER", "HEAVY", "IMPORTED", "IN_FILES", "KINDS", "NOUNS", "SWITCHES",
    "BadOffer", "PluginFile", "PluginRecord", "Registry", "carried", "fault", "heavy_imports", "receive", "registry",
    "too_heavy",
]  # fmt: skip
