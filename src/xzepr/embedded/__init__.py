"""The zero-configuration PostgreSQL: found, initialised, started, watched, without anybody's help.

binaries.py finds the server's programs; account.py is about the account it runs under; cluster.py makes and describes the data directory;
leftovers.py ends what an earlier server left; launch.py is what turns into the server; supervise.py keeps it running and lets other processes of the
same state directory join.
"""

from xzepr.embedded.account import EmbeddedError, default_state_dir
from xzepr.embedded.supervise import EmbeddedPostgres

__all__ = ["EmbeddedError", "EmbeddedPostgres", "default_state_dir"]
