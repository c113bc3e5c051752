-- Bookkeeping of the database itself: migrations, limits, health.

-- name: make_migrations_table
-- What was applied, with the hash of the file as it was.
create table if not exists schema_migrations (
    number integer not null,
    name text not null,
    sha256 text not null,
    applied_at timestamptz not null default clock_timestamp(),
    constraint schema_migrations_pkey primary key (number)
)

-- name: migrations_table_exists
-- Asked first, so that a look writes nothing.
select to_regclass('schema_migrations') is not null

-- name: applied_migrations
-- In order.
select m.number, m.name, m.sha256 from schema_migrations m order by m.number

-- name: add_migration
-- In the transaction of the file itself, when it has one.
insert into schema_migrations (number, name, sha256) values ($1, $2, $3)

-- name: try_migration_lock
-- Polled: a session that waits for this lock holds a snapshot, and a concurrent index creation waits for every snapshot.
select pg_try_advisory_lock(hashtext('xzepr'), hashtext('migrate'))

-- name: free_migration_lock
select pg_advisory_unlock(hashtext('xzepr'), hashtext('migrate'))

-- name: server_facts
-- What a start checks: version (150018 for 15.18), encoding, room for connections.
select
    current_setting('server_version_num')::integer as version_num,
    current_setting('server_version') as version,
    current_setting('server_encoding') as encoding,
    current_setting('max_connections')::integer
        - current_setting('superuser_reserved_connections')::integer as connections_max

-- name: health
-- One look for /health: the newest migration, and whether a sequencer leads.
select
    (select max(m.number) from schema_migrations m) as migration,
    (select s.expires_at > clock_timestamp() from sequencer s) as sequencer_leads

-- name: find_key
-- A finished request's key; one older than $4 counts as new.
select k.body_sha256, k.answer_id, k.answer_status, k.answer
from idempotency_keys k
where k.principal_id = $1 and k.route = $2 and k.key = $3 and (k.lasting or k.created_at >= $4)

-- name: wait_for_locks
-- In this transaction: $1 milliseconds for a lock, and as much more for a statement.
select set_config('lock_timeout', $1, true), set_config('statement_timeout', (2 * $1::bigint)::text, true)

-- name: claim_keys
-- A key is ours when the answer that comes back is ours. In the order given, which must be sorted. Waits for an open transaction that holds a
-- key; takes over one older than its expiry. The update that changes nothing is what makes the other's row come back.
insert into idempotency_keys as k (principal_id, route, key, body_sha256, answer_id, answer_status, answer, lasting, created_at)
select c.principal_id, c.route, c.key, c.body_sha256, c.answer_id, c.answer_status, c.answer, c.lasting, c.created_at
from unnest(
    $1::text[], $2::text[], $3::text[], $4::bytea[], $5::text[], $6::integer[], $7::text[], $8::boolean[], $9::timestamptz[]
) with ordinality as c (principal_id, route, key, body_sha256, answer_id, answer_status, answer, lasting, created_at, place)
order by c.place
on conflict (principal_id, route, key) do update set
    body_sha256 = case when k.lasting or k.created_at >= $10 then k.body_sha256 else excluded.body_sha256 end,
    answer_id = case when k.lasting or k.created_at >= $10 then k.answer_id else excluded.answer_id end,
    answer_status = case when k.lasting or k.created_at >= $10 then k.answer_status else excluded.answer_status end,
    answer = case when k.lasting or k.created_at >= $10 then k.answer else excluded.answer end,
    created_at = case when k.lasting or k.created_at >= $10 then k.created_at else excluded.created_at end
returning k.principal_id, k.route, k.key, k.body_sha256, k.answer_id, k.answer_status, k.answer

-- name: sweep_keys
-- In bounded pieces, oldest first.
delete from idempotency_keys k
using (
    select o.principal_id, o.route, o.key from idempotency_keys o
    where o.created_at < $1 and not o.lasting order by o.created_at limit $2 for update skip locked
) old
where k.principal_id = old.principal_id and k.route = old.route and k.key = old.key
