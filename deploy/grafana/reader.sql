-- The user of Grafana: reads what the dashboard "history" asks for, and nothing else.
-- psql --dbname nptwatch --file reader.sql, then \password grafana; again after each upgrade.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'grafana') THEN
        CREATE ROLE grafana LOGIN;
    END IF;
END
$$;
GRANT SELECT ON v_latest, v_history, v_best, jobs, workers, runs TO grafana;
GRANT SELECT (id, run_id, kind, at, acked_by) ON events TO grafana;
GRANT SELECT (id, event_row_id, channel, state, error) ON outbox TO grafana;
ALTER ROLE grafana SET jit = off; -- compiling v_latest takes longer than answering
ALTER ROLE grafana SET default_transaction_read_only = on;
ALTER ROLE grafana SET statement_timeout = '30s';
