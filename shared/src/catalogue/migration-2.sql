-- A ledger of the first release: names compared by bytes, members and providers found by an index, what waits is
-- parked until it is loaded.
alter table landfall.ledger add column if not exists cleared timestamptz;
alter table landfall.ledger
    alter column bucket type text collate "C", alter column key type text collate "C",
    alter column subject type text collate "C", alter column kind type text collate "C",
    alter column collection type text collate "C", alter column item type text collate "C",
    alter column change type text collate "C", alter column version_id type text collate "C",
    alter column etag type text collate "C", alter column sequencer type text collate "C",
    alter column provider type text collate "C", alter column state type text collate "C",
    alter column effect type text collate "C", alter column event type text collate "C",
    alter column stage type text collate "C", alter column code type text collate "C",
    alter column released_by type text collate "C";
alter table landfall.ledger
    set (fillfactor = 90, autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02);
update landfall.ledger set state = 'parked' where state = 'ready';
drop index if exists landfall.ledger_parked;
create index ledger_parked on landfall.ledger (collection, until) where state = 'parked';
create index if not exists ledger_member on landfall.ledger (bucket, key, member) where member > 0;
create index if not exists ledger_provider on landfall.ledger (provider, updated);
alter table landfall.collections
    alter column collection type text collate "C", alter column provider type text collate "C";
create table if not exists landfall.watermarks (
    name text collate "C" primary key,
    at   timestamptz not null
);
create table if not exists landfall.migrations (
    version integer primary key,
    at      timestamptz not null default now()
);
