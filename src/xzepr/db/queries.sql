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
