"""Settings: every knob once, typed, with its unit; read once, frozen, handed down. There is no global.

model.py is what there is; load.py where values come from; checks.py what must hold together; older.py the names of older deployments;
sample.py writes the sample file and the reference page from the model. Source: contract `config.md`.
"""

from xzepr.settings.load import Loaded, SettingsError, load_settings
from xzepr.settings.model import Settings, decode_settings, encode_settings

__all__ = ["Loaded", "Settings", "SettingsError", "decode_settings", "encode_settings", "load_settings"]
