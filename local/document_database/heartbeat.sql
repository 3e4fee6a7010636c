-- One row every second or so, never deleted: the newest one that a copy holds tells when it ends.
create table heartbeat (
    id bigint generated always as identity primary key,
    at timestamptz not null default clock_timestamp()
);
