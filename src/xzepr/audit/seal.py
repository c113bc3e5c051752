"""Rows into the chain: each second by the relay that leads; each hour, and when it ends, a signed checkpoint.

A seal takes whatever is committed and in no seal yet, in the order of ids; a row that commits late is in the next one. So each row is sealed once,
and the seals of any number of relays make one chain: who seals holds a lock, and two seals cannot have one number. A leader that was paused and wakes
up late does no harm: it adds the next seal of the same chain.

Failures: a round that fails is logged and tried again; rows wait meanwhile, nothing is lost. When the chain is no longer the one that this process
wrote, `audit.chain_changed` is logged as an error: somebody changed the database behind the server's back, or restored a backup. Sealing goes on,
behind a hole in the numbers: verification shows it for good.
"""

import asyncio
import contextlib
from base64 import b64encode
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

import asyncpg
import structlog

from xzepr import clock
from xzepr.audit.chain import checkpoint_text, row_hash, rows_hash, seal_hash
from xzepr.audit.signing import KeyUnusable, PemSigner, Signer
from xzepr.db.pool import Database
from xzepr.db.queries import Queries
from xzepr.errors import Unavailable
from xzepr.settings import Settings
from xzepr.stream.lead import Lead

log = structlog.get_logger(__name__)
queries = Queries("xzepr.audit")

SEAL_INTERVAL_S: Final = 1.0
SEAL_ROWS_MAX: Final = 1_000
CHECKPOINT_INTERVAL: Final = timedelta(hours=1)
# After a checkpoint that could not be signed.
CHECKPOINT_RETRY: Final = timedelta(minutes=1)
# For the last round, while the relay ends.
LAST_ROUND_S: Final = 4.0

# Gives the key that signs, at the moment of the call; None: there is none.
SignerOf = Callable[[], Signer | None]


def signer_of(settings: Settings) -> SignerOf:
    """From the file that the settings name, read anew each time."""
    path = settings.jwt.private_key_path
    return lambda: PemSigner(path) if path is not None else None


class Sealer:
    """One process's part in the chain. signer: called for each checkpoint; may raise KeyUnusable."""

    def __init__(self, database: Database, signer: SignerOf) -> None:
        self._database = database
        self._signer = signer
        self._last: tuple[int, bytes] | None = None
        self._not_before: datetime | None = None
        self._told_unsigned = False
        self._told_changed = False

    async def seal(self) -> int:
        """Seal what is there to seal; how many rows. Raises Unavailable."""
        sealed = 0
        while (count := await self._seal_once()) > 0:
            sealed += count
            if count < SEAL_ROWS_MAX:
                break
        return sealed

    async def checkpoint(self, now: datetime, *, last: bool = False) -> bool:
        """Sign the newest seal if an hour has gone by since the last checkpoint, or at once if it is to be the last; whether it was done.

        Nothing is signed twice: without a new seal there is nothing to sign. Raises Unavailable, KeyUnusable.
        """
        if not last and self._not_before is not None and now < self._not_before:
            return False
        async with self._database.transaction() as connection:
            if not await connection.fetchval(queries["try_seal_lock"]):
                return False
            seal = await connection.fetchrow(queries["last_seal"])
            before = await connection.fetchrow(queries["last_checkpoint"])
            if seal is None or (before is not None and before["seal"] == seal["number"]):
                return False
            # A clock that was set back must not put the next one off for as long.
            if not last and before is not None and timedelta(0) <= now - before["signed_at"] < CHECKPOINT_INTERVAL:
                return False
            # For the case that signing fails; a success is found in the table.
            self._not_before = now + CHECKPOINT_RETRY
            number = before["number"] + 1 if before is not None else 1
            signed_at = clock.rfc3339(now)
            signer = self._signer()
            kid = signer.kid if signer is not None else None
            text = checkpoint_text(number=number, seal=seal["number"], seal_sha256=seal["sha256"], signed_at=signed_at, kid=kid)
            signature = signer.sign(text) if signer is not None else None
            await connection.execute(queries["add_checkpoint"], number, seal["number"], seal["sha256"], now, kid, signature)
        self._not_before = None
        if signer is None and not self._told_unsigned:
            self._told_unsigned = True
            log.warning("audit.checkpoint_unsigned", reason="there is no signing key (jwt.private_key_path)")
        # All of it: a copy of this line is what a truncated database is compared with.
        log.info(
            "audit.checkpoint",
            number=number,
            seal=seal["number"],
            sha256=seal["sha256"].hex(),
            signed_at=signed_at,
            kid=kid or "-",
            signature=b64encode(signature).decode() if signature is not None else "-",
        )
        return True

    async def _seal_once(self) -> int:
        async with self._database.transaction() as connection:
            if not await connection.fetchval(queries["try_seal_lock"]):
                return 0
            is_changed = self._last is not None and await connection.fetchval(queries["seal_sha256"], self._last[0]) != self._last[1]
            if is_changed and self._last is not None and not self._told_changed:
                self._told_changed = True
                log.error("audit.chain_changed", seal=self._last[0], reason="the database no longer has the seal that this process wrote")
            rows = await connection.fetch(queries["take_unsealed"], SEAL_ROWS_MAX)
            if not rows:
                return 0
            before = await connection.fetchrow(queries["last_seal"])
            previous = before["sha256"] if before is not None else None
            # A number is never given again, so a seal that was removed leaves a hole for good.
            number = await connection.fetchval(queries["highest_number"]) + 1
            if is_changed and self._last is not None:
                number, previous = max(number, self._last[0] + 1), self._last[1]
            row_ids = [row["id"] for row in rows]
            hashes = [row_hash(dict(row)) for row in rows]
            rows_sha256 = rows_hash(zip(row_ids, hashes, strict=True))
            now = clock.now()
            made = seal_hash(
                number=number,
                first_row=row_ids[0],
                last_row=row_ids[-1],
                row_count=len(rows),
                rows_sha256=rows_sha256,
                previous=previous,
                sealed_at=clock.rfc3339(now),
            )
            await connection.execute(queries["add_seal"], number, row_ids[0], row_ids[-1], len(rows), rows_sha256, previous, made, now)
            await connection.execute(queries["add_sealed_rows"], number, row_ids, hashes)
            await connection.execute(queries["forget_unsealed"], row_ids)
        self._last = (number, made)
        self._told_changed = False
        return len(rows)


async def keep_sealing(database: Database, lead: Lead, settings: Settings, *, interval_s: float = SEAL_INTERVAL_S) -> None:
    """For as long as this process leads. Until cancelled; then, if it still leads, a last seal and a last checkpoint."""
    sealer = Sealer(database, signer_of(settings))
    try:
        while True:
            if lead.epoch is not None:
                await _round(sealer)
            await asyncio.sleep(interval_s)
    except asyncio.CancelledError:
        if lead.epoch is not None:
            # What was done until now by this server and its workers, which have ended by now, is sealed and signed.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LAST_ROUND_S):
                    await _round(sealer, last=True)
        raise


async def _round(sealer: Sealer, *, last: bool = False) -> None:
    try:
        await sealer.seal()
        await sealer.checkpoint(clock.now(), last=last)
    except (Unavailable, asyncpg.PostgresError) as error:
        log.warning("audit.round_failed", reason=str(error))
    except KeyUnusable as error:
        # Without the trace: the message names the file and what is wrong with it.
        log.error("audit.checkpoint_not_signed", setting="jwt.private_key_path", reason=str(error))  # noqa: TRY400
    except Exception:
        log.exception("audit.round_failed")
