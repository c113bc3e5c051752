-- Artifacts: read off the events; there is no table of them.

-- name: search_artifacts
-- Most recently touched first: events from the newest on, of each artifact only its newest one, by heads and queue; a head whose event retention
-- removed hides none that is still there. The inner part walks one index and looks at no more than $2 rows. artifacts/read.py and events/walk.py put the
-- conditions in, with their parameters before these two.
select e.id, e.name, e.version, e.release, e.platform_id, e.package
from (select w.* from events w where true /* walk */ order by w.id desc limit $2) e
where true /* filters */
    -- Scalar subqueries, asked of each row on the way: as joins they would be made for the whole month before the first row is shown.
    and not coalesce(
        (
            select true
            from gate_heads h
            where h.artifact_id = e.artifact_id and h.seq > e.seq
                and (
                    select true
                    from removed_heads k
                    where k.event_id = h.event_id and not exists (select from events x where x.id = k.event_id)
                ) is null
            limit 1
        ),
        false
    )
    and not coalesce(
        (select true from outbox o where o.artifact_id = e.artifact_id and o.seq > e.seq and o.kind = 'event.recorded' limit 1), false
    )
order by e.id desc
limit $1

-- name: search_artifacts_stop
-- Where the walk stopped because of its bound; no row when it came to the end by itself.
select w.id from events w where true /* walk */ order by w.id desc offset $1 limit 1

-- name: timeline
-- All five fields are compared, too: sixteen bytes of a hash choose, they do not decide. $9: bytes of a page.
select
    p.id, p.seq, p.name, p.version, p.release, p.platform_id, p.package, p.description, p.payload, p.success,
    p.event_receiver_id, p.event_receiver_version, p.owner_id, p.created_at, p.event_receiver_name, p.event_receiver_type, p.followed
from (
    select
        f.*,
        coalesce(
            sum(
                octet_length(f.description)
                + case when pg_column_compression(f.payload) is null then pg_column_size(f.payload) else octet_length(f.payload::text) end
            ) over before,
            0
        ) as bytes_before,
        lead(true, 1, false) over before as followed
    from (
        select
            e.id, e.seq, e.name, e.version, e.release, e.platform_id, e.package, e.description, e.payload, e.success,
            e.event_receiver_id, e.event_receiver_version, e.owner_id, e.created_at,
            v.name as event_receiver_name, v.type as event_receiver_type
        from events e
        join event_receiver_versions v
            on v.event_receiver_id = e.event_receiver_id and v.resource_version = e.event_receiver_version
        where e.artifact_id = $1 and e.name = $2 and e.version = $3 and e.release = $4 and e.platform_id = $5 and e.package = $6
            and ($7::bigint is null or e.seq > $7)
        order by e.seq
        limit $8
    ) f
    window before as (order by f.seq rows between unbounded preceding and 1 preceding)
) p
where p.bytes_before < $9
order by p.seq
