-- When each stage was done with a document.
alter table landfall.ledger add column if not exists passed text collate "C";
