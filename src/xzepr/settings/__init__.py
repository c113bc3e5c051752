"""Settings: every knob once, typed, with its unit; read once, frozen, handed down. There is no global.

model.py is what there is; load.py where values come from, with names.py for what a written name stands for, yaml_file.py for files and values.py
for single values; checks.py what must hold together and what is not there yet; older.py the names of older deployments; masking.py what may be
shown; sample.py writes the sample file and the reference page from the model. Source: contract `config.md`.
"""

from xzepr.settings.load import Loaded, SettingsError, load_settings
from xzepr.settings.model import Settings, decode_settings, encode_settings

__all__ = ["Loaded", "Settings", "SettingsError", "decode_settings", "encode_settings", "load_settings"]
