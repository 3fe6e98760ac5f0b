#!/bin/sh
# Entry point of the PostgreSQL image: creates user and database at first start with a server that listens on its
# socket only, as the registry's image does.
set -eu
[ "$1" = postgres ] || exec "$@"

as_postgres() { setpriv --reuid postgres --regid postgres --init-groups "$@"; }

install --directory --owner postgres --group postgres --mode 700 "$PGDATA"
install --directory --owner postgres --group postgres --mode 2775 /var/run/postgresql
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  password=$(mktemp)
  printf %s "$POSTGRES_PASSWORD" > "$password"
  chown postgres "$password"
  as_postgres initdb --username "$POSTGRES_USER" --pwfile "$password" --auth-local trust --auth-host scram-sha-256
  rm "$password"
  echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
  as_postgres pg_ctl --wait --options "-c listen_addresses=''" start
  as_postgres createdb --username "$POSTGRES_USER" "$POSTGRES_DB"
  as_postgres pg_ctl --wait --mode fast stop
fi
exec setpriv --reuid postgres --regid postgres --init-groups "$@" -c "listen_addresses=*"
