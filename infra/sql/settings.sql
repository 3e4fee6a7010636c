-- What a server has to be set to for backups and WAL. Changes only what is in the way, and tells what
-- waits for a restart. Running it again changes nothing.
--
--     psql --set slot_limit=64GB --file infra/sql/settings.sql "host=db.example.net user=postgres dbname=postgres"
--
-- As a superuser, on the primary and on each standby that is backed up; PostgreSQL 15 to 18. Where
-- allow_alter_system is off, write the same into the configuration by the way that is yours.
--
-- slot_limit (64GB): the WAL that a receiver's slot may hold back before the server drops it. Without
-- a limit a receiver that stays away fills the server's disk; with one it leaves a gap. Give what the
-- disk of pg_wal can spare, and more than a weekend writes.

\set ON_ERROR_STOP on
\if :{?slot_limit}
\else
\set slot_limit 64GB
\endif

SELECT format('ALTER SYSTEM SET %I = %L', name, wanted)
  FROM pg_settings
  JOIN (VALUES
       ('wal_level', 'replica', '^minimal$'),
       ('full_page_writes', 'on', '^off$'),
       ('max_wal_senders', '10', '^[0-2]$'),
       ('max_replication_slots', '10', '^0$'),
       ('max_slot_wal_keep_size', :'slot_limit', '^-1$'),
       -- From PostgreSQL 17 on: what incremental backups are made of.
       ('summarize_wal', 'on', '^off$')
     ) AS recommended (setting_name, wanted, in_the_way) ON setting_name = name
 WHERE setting ~ in_the_way
\gexec

-- Who pushes segments and streams nothing: a quiet server hands over at least so often.
SELECT 'ALTER SYSTEM SET archive_timeout = ''300s'''
 WHERE current_setting('archive_mode') <> 'off' AND current_setting('archive_timeout') = '0'
   AND NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_type = 'physical')
\gexec

SELECT pg_reload_conf() AS reloaded \gset

SELECT name AS "restart for", setting AS "to become"
  FROM pg_file_settings
 WHERE NOT applied AND error IS NOT NULL
   AND name IN ('wal_level', 'max_wal_senders', 'max_replication_slots')
 ORDER BY name;
