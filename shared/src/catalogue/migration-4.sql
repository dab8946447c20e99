-- How many members a file has, so that it is known when all have come to an end.
alter table landfall.ledger add column if not exists members integer;
