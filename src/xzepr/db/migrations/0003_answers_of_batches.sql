-- What a retried batch and a repeated CloudEvent need.

-- answer: the body that was answered, where an id alone does not say it (a batch). lasting: kept as long as the event that it names, so
-- never too old: the source and id of a CloudEvent.
alter table idempotency_keys
    add column answer_status integer,
    add column answer text,
    add column lasting boolean not null default false;
-- Retention takes the key away with its event.
create index idempotency_keys_lasting_idx on idempotency_keys (answer_id) where lasting;

-- Who asks by owner names one: events that nobody owns need no entry, and an insert is a twentieth cheaper without it.
drop index events_owner_idx;
create index events_owner_idx on events (owner_id, id) where owner_id is not null;
