-- Users, logins, keys, and what every process must learn of their changes.

-- name: create_user
insert into users (id, username, email, password_hash, roles, enabled, created_at, updated_at)
values ($1, $2, $3, $4, $5, true, $6, $6)

-- name: find_user
select u.id, u.username, u.email, u.issuer, u.roles, u.enabled, u.auth_epoch, u.created_at, u.updated_at, u.last_login_at
from users u
where u.id = $1 and u.deleted_at is null

-- name: lock_user
select u.id, u.username, u.email, u.issuer, u.roles, u.enabled, u.auth_epoch, u.password_hash
from users u
where u.id = $1 and u.deleted_at is null
for update

-- name: find_user_by_name
-- Local or not: the name is one in this installation.
select u.id, u.username, u.email, u.issuer, u.roles, u.enabled, u.auth_epoch, u.password_hash
from users u
where lower(u.username) = lower($1) and u.deleted_at is null

-- name: search_users
select u.id, u.username, u.email, u.issuer, u.roles, u.enabled, u.created_at, u.updated_at, u.last_login_at
from users u
where u.deleted_at is null
    and ($1::text is null or lower(u.username) = lower($1))
    and ($2::boolean is null or u.enabled = $2)
    and ($3::text is null or u.id < $3)
order by u.id desc
limit $4

-- name: has_users
select exists (select from users)

-- name: serialize_administrators
-- Who takes an administrator away, or makes the first one, does so alone: two at once would leave none, or two.
select pg_advisory_xact_lock(hashtext('xzepr'), hashtext('administrators'))

-- name: count_other_administrators
-- Who could still log in and make others.
select count(*) from users u where u.id <> $1 and u.enabled and u.deleted_at is null and 'admin' = any(u.roles)

-- name: change_user
update users u set email = $2, enabled = $3, password_hash = $4, roles = $5, auth_epoch = $6, updated_at = $7 where u.id = $1

-- name: delete_user
update users u set enabled = false, password_hash = null, deleted_at = $2, updated_at = $2, auth_epoch = u.auth_epoch + 1
where u.id = $1
returning u.auth_epoch

-- name: rehash_password
-- Unless it was changed meanwhile.
update users u set password_hash = $3 where u.id = $1 and u.password_hash = $2

-- name: note_login
update users u set last_login_at = $2 where u.id = $1

-- name: tell_change
-- In the transaction of the act: every process reads it within a second.
insert into auth_changes (kind, subject, epoch) values ($1, $2, $3)

-- name: read_changes
-- Of the last $1 seconds. By time and not behind an id: a slow commit shows a low id late.
select c.id, c.kind, c.subject, c.epoch from auth_changes c where c.at > clock_timestamp() - make_interval(secs => $1) order by c.id

-- name: sweep_changes
delete from auth_changes c where c.at < clock_timestamp() - make_interval(secs => $1)

-- name: begin_family
insert into login_families (id, user_id, method, created_at, expires_at) values ($1, $2, $3, $4, $5)

-- name: end_family
-- No row: it had ended.
update login_families f set ended_at = $2 where f.id = $1 and f.ended_at is null returning f.id

-- name: end_families_of_user
update login_families f set ended_at = $2 where f.user_id = $1 and f.ended_at is null

-- name: add_refresh_token
insert into refresh_tokens (token_sha256, family_id, created_at, expires_at) values ($1, $2, $3, $4)

-- name: lock_refresh_token
-- Two who bring the same token take turns. By itself: what is joined here would be as it was before the wait.
select t.family_id, t.expires_at, t.used_at, t.successor_sha256 from refresh_tokens t where t.token_sha256 = $1 for update

-- name: find_family
-- With its user as of now, and whether the token $2 of it was turned in.
select
    f.method, f.ended_at, f.expires_at as family_expires_at,
    u.id, u.username, u.email, u.roles, u.auth_epoch, u.enabled and u.deleted_at is null as user_counts,
    (select s.used_at is not null from refresh_tokens s where s.token_sha256 = $2) as successor_used
from login_families f
join users u on u.id = f.user_id
where f.id = $1

-- name: use_refresh_token
update refresh_tokens t set used_at = $2, successor_sha256 = $3 where t.token_sha256 = $1

-- name: sweep_refresh_tokens
-- Of a login that goes on, which would otherwise keep every token that it ever had. One that somebody brings at this moment waits for the next time.
delete from refresh_tokens t
where t.token_sha256 = any(array(
    select o.token_sha256 from refresh_tokens o where o.family_id = $1 and o.expires_at < $2 for update skip locked
))

-- name: prolong_family
update login_families f set expires_at = greatest(f.expires_at, $2) where f.id = $1

-- name: sweep_families
-- With their tokens and sessions. $2: how many at once.
delete from login_families f
where f.id = any(array(select e.id from login_families e where e.expires_at < $1 order by e.expires_at limit $2))

-- name: is_access_current
-- For a process that has not heard of changes for a while: whether a token of this user, from this epoch on, of this login, still counts.
select
    u.enabled and u.deleted_at is null and u.auth_epoch <= $2
    and ($3::text is null or exists (select from login_families f where f.id = $3 and f.ended_at is null)) as counts
from users u
where u.id = $1

-- name: create_api_key
insert into api_keys (id, key_sha256, user_id, name, scopes, event_receiver_ids, created_at, expires_at)
values ($1, $2, $3, $4, $5, $6, $7, $8)

-- name: find_api_key
-- With its owner as of now.
select
    k.id, k.scopes, k.event_receiver_ids, k.expires_at, k.revoked_at,
    u.id as user_id, u.username, u.roles, u.auth_epoch, u.enabled and u.deleted_at is null as user_counts
from api_keys k
join users u on u.id = k.user_id
where k.key_sha256 = $1

-- name: search_api_keys
select k.id, k.name, k.user_id, k.scopes, k.event_receiver_ids, k.created_at, k.expires_at, k.last_used_at, k.revoked_at
from api_keys k
where ($1::text is null or k.user_id = $1) and ($2::text is null or k.id < $2)
order by k.id desc
limit $3

-- name: revoke_api_key
-- $2: of this owner only; null: of anybody. No row: not there, not theirs, or revoked already.
update api_keys k set revoked_at = $3
where k.id = $1 and ($2::text is null or k.user_id = $2) and k.revoked_at is null
returning k.id, k.user_id

-- name: note_use
-- Of many keys at once, forward only.
update api_keys k set last_used_at = n.at
from unnest($1::text[], $2::timestamptz[]) as n (id, at)
where k.id = n.id and (k.last_used_at is null or k.last_used_at < n.at)

-- name: receivers_there
-- Which of these receivers exist.
select r.id from event_receivers r where r.id = any($1) and r.deleted_at is null

-- name: lock_guesses
-- What was counted so far, held until the end of the transaction; a count that is new begins with none.
insert into login_guesses as g (bucket, failures, last_at)
select b.bucket, 0, $2 from unnest($1::bytea[]) with ordinality as b (bucket, place) order by b.place
on conflict (bucket) do update set failures = g.failures
returning g.bucket, g.failures, g.last_at

-- name: count_guess
-- One more in each, behind lock_guesses; a pause of $3 seconds begins anew.
update login_guesses g
set failures = case when g.last_at < $2::timestamptz - make_interval(secs => $3) then 1 else g.failures + 1 end, last_at = greatest(g.last_at, $2)
where g.bucket = any($1)

-- name: take_guess_back
-- One less in each; none in $2. $3, $4: when this one was counted, and the last before it, which stands again unless another came meanwhile.
with held as (
    select g.bucket from login_guesses g where g.bucket = any($1) order by g.bucket for update
)
update login_guesses g
set failures = case when g.bucket = $2 then 0 else greatest(g.failures - 1, 0) end, last_at = case when g.last_at = $3 then $4 else g.last_at end
from held h
where g.bucket = h.bucket

-- name: sweep_guesses
delete from login_guesses g where g.last_at < $1

-- name: provider_login_add
-- A login has begun.
insert into oidc_logins (
    state_sha256, browser_sha256, nonce, code_verifier, redirect_to, cli_port, cli_state, cli_code_challenge, created_at
)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9)

-- name: provider_login_take
-- Once, by the browser that began it; another one takes nothing away.
delete from oidc_logins l
where l.state_sha256 = $1 and l.browser_sha256 = $2
returning l.nonce, l.code_verifier, l.redirect_to, l.cli_port, l.cli_state, l.cli_code_challenge, l.created_at

-- name: provider_logins_sweep
delete from oidc_logins l where l.created_at < $1

-- name: cli_code_add
insert into cli_codes (code_sha256, user_id, method, code_challenge, created_at)
values ($1, $2, $3, $4, $5)

-- name: cli_code_take
-- Once, also by a wrong verifier.
delete from cli_codes c
using users u
where c.code_sha256 = $1 and u.id = c.user_id
returning c.code_challenge, c.method, c.created_at, u.id, u.username, u.email, u.roles, u.auth_epoch, (u.enabled and u.deleted_at is null) as enabled

-- name: cli_codes_sweep
delete from cli_codes c where c.created_at < $1

-- name: provider_user_lock
-- Whoever this subject is here; held until the login is decided.
select u.id, u.username, u.email, u.roles, u.auth_epoch, u.enabled
from users u
where u.issuer = $1 and u.subject = $2 and u.deleted_at is null
for update

-- name: provider_user_is_administrator
-- At a glance, without holding it.
select exists (select from users u where u.issuer = $1 and u.subject = $2 and u.deleted_at is null and 'admin' = any(u.roles))

-- name: provider_user_add
-- Nothing when the name is taken, or the subject came in by another request in the meantime.
insert into users (id, username, email, issuer, subject, roles, enabled, created_at, updated_at, last_login_at)
values ($1, $2, $3, $4, $5, $6, true, $7, $7, $7)
on conflict do nothing
returning auth_epoch

-- name: provider_user_update
-- $4: whether the roles are others, which ends the tokens that are out.
update users u
set email = $2, roles = $3, auth_epoch = u.auth_epoch + $4::boolean::integer, last_login_at = $5,
    updated_at = case when $4::boolean or u.email is distinct from $2 then $5 else u.updated_at end
where u.id = $1
returning u.auth_epoch

-- name: browser_session_add
insert into browser_sessions (token_sha256, family_id, id_token) values ($1, $2, $3)

-- name: browser_session_find
-- With the user as it is now. Nothing when it has ended or expired, or the user may not come in any more.
select f.id as family_id, f.method, f.created_at, f.expires_at, u.id as user_id, u.username, u.email, u.roles, u.auth_epoch
from browser_sessions s
join login_families f on f.id = s.family_id
join users u on u.id = f.user_id
where s.token_sha256 = $1 and f.ended_at is null and f.expires_at > $2 and u.enabled and u.deleted_at is null

-- name: browser_session_end
-- Nothing when it has ended already.
update login_families f
set ended_at = $2
from browser_sessions s, users u
where s.token_sha256 = $1 and f.id = s.family_id and u.id = f.user_id and f.ended_at is null
returning f.id as family_id, s.id_token, u.id as user_id, u.username, u.roles
