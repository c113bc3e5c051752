-- The log of acts. Appended to, never changed. Times that go into a hash are read as text, so that whatever stands there can be read.

-- name: record_act
-- In the transaction of the act itself.
with acted as (
    insert into audit_log (id, at, actor_id, actor_name, actor_kind, act, object_id, outcome, address, request_id, details)
    values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
    returning id
)
insert into audit_unsealed (id) select acted.id from acted

-- name: search_acts
-- Newest first, at most $1, looking at no more than $2 rows; see events/walk.py.
select
    e.id, e.at, e.actor_id, e.actor_name, e.actor_kind, e.act, e.object_id, e.outcome, e.address, e.request_id, e.details
from (select w.* from audit_log w where true /* walk */ order by w.id desc limit $2) e
where true /* filters */
order by e.id desc
limit $1

-- name: search_acts_stop
-- Where the walk of search_acts stopped because of its bound; no row when it came to the end by itself.
select w.id from audit_log w where true /* walk */ order by w.id desc offset $1 limit 1

-- name: try_seal_lock
-- One seals at a time; freed at the end of the transaction.
select pg_try_advisory_xact_lock(hashtext('xzepr'), hashtext('audit seal'))

-- name: last_seal
select q.number, q.sha256 from audit_seals q order by q.number desc limit 1

-- name: highest_number
-- That any seal has or had, as far as anything here still tells.
select greatest(
    (select max(q.number) from audit_seals q), (select max(s.seal) from audit_sealed_rows s), (select max(c.seal) from audit_checkpoints c), 0
)

-- name: seal_sha256
select q.sha256 from audit_seals q where q.number = $1

-- name: take_unsealed
-- What is committed and in no seal. A row that was removed before it was sealed, or that is sealed although it is queued, stays in the queue, where
-- verification finds it.
select
    a.id, to_char(a.at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as at, a.actor_id, a.actor_name, a.actor_kind, a.act, a.object_id,
    a.outcome, a.address, a.request_id, a.details
from audit_unsealed u
join audit_log a on a.id = u.id
where not exists (select from audit_sealed_rows s where s.row_id = u.id)
order by u.id
limit $1

-- name: add_seal
insert into audit_seals (number, first_row, last_row, row_count, rows_sha256, previous_sha256, sha256, sealed_at)
values ($1, $2, $3, $4, $5, $6, $7, $8)

-- name: add_sealed_rows
-- $1 the seal; $2, $3 ids and hashes in order.
insert into audit_sealed_rows (seal, place, row_id, row_sha256)
select $1, r.place, r.row_id, r.row_sha256
from unnest($2::text[], $3::bytea[]) with ordinality as r (row_id, row_sha256, place)

-- name: forget_unsealed
delete from audit_unsealed u where u.id = any($1::text[])

-- name: last_checkpoint
select c.number, c.seal, c.signed_at from audit_checkpoints c order by c.number desc limit 1

-- name: add_checkpoint
insert into audit_checkpoints (number, seal, sha256, signed_at, kid, signature) values ($1, $2, $3, $4, $5, $6)

-- name: seals_behind
-- In order, behind a number up to another.
select
    q.number, q.first_row, q.last_row, q.row_count, q.rows_sha256, q.previous_sha256, q.sha256,
    to_char(q.sealed_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as sealed_at
from audit_seals q
where q.number > $1 and q.number <= $2
order by q.number
limit $3

-- name: sealed_rows_behind
-- In order, behind a place of a seal ($1, $2) up to a seal: what was sealed, and the row as it is now, if it is there.
select
    s.seal, s.place, s.row_id, s.row_sha256, a.id, to_char(a.at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as at, a.actor_id,
    a.actor_name, a.actor_kind, a.act, a.object_id, a.outcome, a.address, a.request_id, a.details
from audit_sealed_rows s
left join audit_log a on a.id = s.row_id
where (s.seal, s.place) > ($1, $2) and s.seal <= $3
order by s.seal, s.place
limit $4

-- name: sealed_without_seal
-- Seals that are gone or never were, while their rows are there.
select s.seal, count(*) as row_count, min(s.row_id) as first_row, max(s.row_id) as last_row
from audit_sealed_rows s
left join audit_seals q on q.number = s.seal
where q.number is null
group by s.seal
order by s.seal
limit $1

-- name: rows_outside
-- Rows behind an id, up to another ($2), that no seal holds and that do not wait for one, among the next $3; and the last of those.
select
    max(n.id) as last,
    array_agg(n.id order by n.id) filter (where s.row_id is null and u.id is null) as outside
from (select a.id from audit_log a where a.id > $1 and a.id <= $2 order by a.id limit $3) n
left join audit_sealed_rows s on s.row_id = n.id
left join audit_unsealed u on u.id = n.id

-- name: last_row
select max(a.id) from audit_log a

-- name: waiting
-- How many rows wait for a seal, and the oldest of them; those of the queue whose row is gone, and those that a seal holds already.
select
    count(*) filter (where a.id is not null and s.row_id is null) as waiting,
    min(u.id) filter (where a.id is not null and s.row_id is null) as oldest,
    array_agg(u.id order by u.id) filter (where a.id is null and s.row_id is null) as gone,
    array_agg(u.id order by u.id) filter (where s.row_id is not null) as sealed
from audit_unsealed u
left join audit_log a on a.id = u.id
left join audit_sealed_rows s on s.row_id = u.id

-- name: checkpoints_behind
-- In order, each with the hash of its seal, null when there is no such seal.
select
    c.number, c.seal, c.sha256, to_char(c.signed_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as signed_at, c.kid, c.signature,
    q.sha256 as seal_sha256
from audit_checkpoints c
left join audit_seals q on q.number = c.seal
where c.number > $1
order by c.number
limit $2
