-- The ledger: what became of everything that landed. One row for each (item, source key), and for each
-- landed object or member that is no item; reduced by S3's order, removals included.
-- Names are compared by their bytes: that is S3's order of keys, it is quick, and a prefix is a range of an index.
create schema if not exists landfall;

create table landfall.ledger (
    bucket      text collate "C" not null,
    key         text collate "C" not null,
    subject     text collate "C" not null,     -- what the row is about, see Subject in catalogue.rs
    kind        text collate "C" not null,     -- item, collection, object
    collection  text collate "C" not null default '',
    item        text collate "C" not null default '',
    member      integer not null default 0,    -- line or feature, from 1; 0 is the object itself
    members     integer,                       -- how many the file has
    change      text collate "C" not null,     -- created, removed
    version_id  text collate "C",
    etag        text collate "C",
    size        bigint,
    sequencer   text collate "C",              -- hexadecimal, padded to 64 digits, so that it sorts as a number
    event_time  timestamptz not null,
    provider    text collate "C" not null,
    redrive     integer not null default 0,
    state       text collate "C" not null,
    effect      text collate "C",
    event       text collate "C" not null,
    announced   timestamptz,
    stage       text collate "C",
    code        text collate "C",
    reason      text,
    problems    jsonb,
    waits_for   jsonb,
    until       timestamptz,
    destination text,
    parked      text,                          -- the event that goes on when its collection is there
    released_by text collate "C",
    cleared     timestamptz,                   -- when we were about to remove the landed object, completed as it is
    passed      text collate "C",              -- the stages that it had passed, and when
    updated     timestamptz not null default now(),
    primary key (bucket, key, subject)
) with (fillfactor = 90, autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02);

create index ledger_order on landfall.ledger (bucket, key, sequencer desc nulls last, event_time desc, redrive desc);
create index ledger_member on landfall.ledger (bucket, key, member) where member > 0;
create index ledger_item on landfall.ledger (collection, item) where kind <> 'object';
create index ledger_event on landfall.ledger (event);
create index ledger_parked on landfall.ledger (collection, until) where state = 'parked';
create index ledger_released on landfall.ledger (released_by) where released_by is not null;
create index ledger_provider on landfall.ledger (provider, updated);
create index ledger_updated on landfall.ledger (updated);

-- Whose a collection is. That a row is here says too that what waits for the collection may go on.
create table landfall.collections (
    collection text collate "C" primary key,
    provider   text collate "C" not null
);

-- Until when maintenance has looked at what changed.
create table landfall.watermarks (
    name text collate "C" primary key,
    at   timestamptz not null
);

-- What has been done to this schema; see MIGRATIONS in maintenance.rs.
create table landfall.migrations (
    version integer primary key,
    at      timestamptz not null default now()
);
