// SPDX-License-Identifier: Apache-2.0
// Generators of the guest scripts that run PostgreSQL and SQLite on a volume. Pure.
// A transaction inserts one row and counts it in another table, so that a half of one would show. It is acknowledged when
// the client was told so; the highest acknowledged number of each worker goes to the test once a second.

import { connectScript } from './filesystem-scripts.js';
import type { TwoPathTarget } from './two-path-target.js';

export const postgresWorkers = 3;

const database = `
bin=/usr/lib/postgresql/15/bin
data=/mnt/postgresql
as_user() { su user -c "$*"; }
sql() { as_user "$bin/psql -h /run/postgresql -d postgres -At -v ON_ERROR_STOP=1 -c \\"$1\\""; }
start_postgres() {
  mkdir -p /run/postgresql && chown user /run/postgresql
  as_user "$bin/pg_ctl -D $data -l /run/postgresql/log -w -t 120 start" >/run/started 2>&1 ||
    { cat /run/started /run/postgresql/log; fail "PostgreSQL does not start"; }
}
`;

/**
 * Starts both databases on a new file system, works on them while the test kills the active controller (mark working, GO
 * killed), and goes on until its crash (mark crash-me).
 * Hands back, again and again: pg_N (last acknowledged number of worker N), sqlite (the same).
 */
export function workScript(where: Pick<TwoPathTarget, 'nqn' | 'ports'>): string {
  const workers = Array.from({ length: postgresWorkers }, (_, index) => index + 1);
  return `${connectScript(where)}${database}
step "file system"
mkfs.ext4 -q "$disk" || fail "mkfs"
mount -t ext4 "$disk" /mnt || fail "mount"
mkdir "$data" && chown user "$data"
step "initdb"
as_user "$bin/initdb -D $data --data-checksums --no-locale -E UTF8 -A trust -N" >/run/initdb 2>&1 ||
  { cat /run/initdb; fail "initdb"; }
cat >>"$data/postgresql.conf" <<'CONF'
listen_addresses = ''
unix_socket_directories = '/run/postgresql'
shared_buffers = 32MB
max_wal_size = 96MB
jit = off
checkpoint_timeout = 30s
CONF
# Nobody else does for what initdb and this script wrote, and a crash of the host takes it.
sync || fail "sync"
step "start"
start_postgres
sql "CREATE EXTENSION amcheck; CREATE TABLE entry (w int, n int, pad text, PRIMARY KEY (w, n)); CREATE TABLE total (w int PRIMARY KEY, n int)" >/dev/null ||
  fail "tables"
worker() {
  sql "INSERT INTO total VALUES ($1, 0)" >/dev/null || fail "worker $1"
  seq 1 20000 | awk -v w=$1 '{ print "BEGIN; INSERT INTO entry VALUES (" w ", " $1 ", repeat(md5(random()::text), 8)); UPDATE total SET n = n + 1 WHERE w = " w "; COMMIT; SELECT " $1 ";" }' >/run/w$1.sql
  chmod 644 /run/w$1.sql
  as_user "$bin/psql -h /run/postgresql -d postgres -qAt -v ON_ERROR_STOP=1 -f /run/w$1.sql" >/run/pg_$1 2>/run/pg_err_$1
  value broken "worker $1: $(tail -n 1 /run/pg_err_$1)"
}
sqlite_worker() {
  db=/mnt/sqlite.db
  sqlite3 $db "PRAGMA journal_mode=WAL; CREATE TABLE entry (n INTEGER PRIMARY KEY, pad BLOB); CREATE TABLE total (n INTEGER); INSERT INTO total VALUES (0)" >/dev/null
  n=0
  while n=$((n + 1)); do
    sqlite3 $db "PRAGMA synchronous=FULL; BEGIN; INSERT INTO entry VALUES ($n, randomblob(700)); UPDATE total SET n = n + 1; COMMIT" 2>/run/sqlite_err ||
      { value broken "SQLite: $(cat /run/sqlite_err)"; return; }
    echo $n >>/run/sqlite
  done
}
acked() { tail -n 1 "/run/$1" 2>/dev/null || true; }
report() {
  for key in ${workers.map((index) => `pg_${index}`).join(' ')} sqlite; do value $key "$(acked $key)"; done
}
past() { # KEY NUMBER
  _now=$(acked "$1"); [ "\${_now:-0}" -gt "$2" ]
}
step "work"
for w in ${workers.join(' ')}; do worker $w & done
sqlite_worker &
( while :; do sleep 1; report; done ) &
for key in ${workers.map((index) => `pg_${index}`).join(' ')} sqlite; do until_ok 60 past $key 5 || fail "$key does nothing"; done
mark working
wait_go killed 60
for key in ${workers.map((index) => `pg_${index}`).join(' ')} sqlite; do
  from=$(acked $key)
  until_ok 90 past $key $((from + 15)) || fail "$key stands still after the kill"
done
report
host_is_clean
mark crash-me
sleep 600
fail "nobody crashed this guest"
`;
}

/** After the crash: recovery, every acknowledged transaction, and what the databases themselves can check. */
export function recoverScript(
  where: Pick<TwoPathTarget, 'nqn' | 'ports'>,
  acked: { postgres: readonly number[]; sqlite: number },
): string {
  return `${connectScript(where)}${database}
step "mount after the crash"
mount -t ext4 "$disk" /mnt || fail "mount"
step "PostgreSQL recovers"
rm -f "$data/postmaster.pid"
start_postgres
grep -E 'PANIC|FATAL|invalid page|checksum' /run/postgresql/log && fail "recovery complains"
kept() { # WORKER ACKNOWLEDGED: all of them, without a gap, and the total counts them
  found=$(sql "SELECT (SELECT count(*) FROM entry WHERE w = $1), (SELECT max(n) FROM entry WHERE w = $1), (SELECT n FROM total WHERE w = $1)")
  count=\${found%%|*}
  [ "$found" = "$count|$count|$count" ] || fail "worker $1: count, highest and total are $found"
  [ "$count" -ge "$2" ] || fail "worker $1: $2 acknowledged, $count found"
  value kept_$1 "$count"
}
${acked.postgres.map((count, index) => `kept ${index + 1} ${count}`).join('\n')}
step "amcheck"
as_user "$bin/pg_amcheck -h /run/postgresql -d postgres --heapallindexed" >/run/amcheck 2>&1 || { cat /run/amcheck; fail "pg_amcheck"; }
as_user "$bin/pg_ctl -D $data -m fast -w stop" >/dev/null || fail "stop"
step "checksums"
as_user "$bin/pg_checksums --check -D $data" >/run/checksums 2>&1 || { cat /run/checksums; fail "pg_checksums"; }
value_file checksums /run/checksums
step "SQLite"
[ "$(sqlite3 /mnt/sqlite.db 'PRAGMA integrity_check')" = ok ] || fail "integrity_check"
found=$(sqlite3 /mnt/sqlite.db 'SELECT count(*), max(n), (SELECT n FROM total) FROM entry')
count=\${found%%|*}
[ "$found" = "$count|$count|$count" ] || fail "SQLite: count, highest and total are $found"
[ "$count" -ge ${acked.sqlite} ] || fail "SQLite: ${acked.sqlite} acknowledged, $count found"
value kept_sqlite "$count"
umount /mnt || fail "umount"
fsck_clean "$disk"
host_is_clean
step done
`;
}
