-- The ledger: what became of everything that landed. One row for each (item, source key), and for each
-- landed object or member that is no item; reduced by S3's order, removals included.
create schema if not exists landfall;

create table landfall.ledger (
    bucket      text not null,
    key         text not null,
    subject     text not null,                 -- what the row is about, see Subject in catalogue.rs
    kind        text not null,                 -- item, collection, object
    collection  text not null default '',
    item        text not null default '',
    member      integer not null default 0,    -- line or feature, from 1; 0 is the object itself
    change      text not null,                 -- created, removed
    version_id  text,
    etag        text,
    size        bigint,
    sequencer   text,                          -- hexadecimal, padded to 64 digits, so that it sorts as a number
    event_time  timestamptz not null,
    provider    text not null,
    redrive     integer not null default 0,
    state       text not null,
    effect      text,
    event       text not null,
    announced   timestamptz,
    stage       text,
    code        text,
    reason      text,
    problems    jsonb,
    waits_for   jsonb,
    until       timestamptz,
    destination text,
    parked      text,                          -- the event that goes on when its collection is there
    released_by text,
    cleared     timestamptz,                   -- when we were about to remove the landed object, completed as it is
    updated     timestamptz not null default now(),
    primary key (bucket, key, subject)
);

create index ledger_order on landfall.ledger (bucket, key, sequencer desc nulls last, event_time desc, redrive desc);
create index ledger_item on landfall.ledger (collection, item) where kind <> 'object';
create index ledger_event on landfall.ledger (event);
create index ledger_parked on landfall.ledger (collection, state) where state in ('parked', 'ready');
create index ledger_released on landfall.ledger (released_by) where released_by is not null;
create index ledger_updated on landfall.ledger (updated);

-- Whose a collection is.
create table landfall.collections (
    collection text primary key,
    provider   text not null
);
