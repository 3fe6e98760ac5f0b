#!/bin/bash
# The steps of docker/README.md, from .env to a judged model, a backup and its restoration; run.sh starts it where
# dockerd runs. One line a step; what the commands print is in walk.log.
set -euo pipefail
cd "$(dirname "$0")/../../docker"
folder=$(realpath ../..) # of run.sh
log=$folder/walk.log
: > "$log"

step() { # step NAME COMMAND...
  local name=$1 start=$SECONDS code
  shift
  echo "== $name" >> "$log"
  set +e
  (set -e && "$@") >> "$log" 2>&1
  code=$?
  set -e
  if [ $code != 0 ]; then
    tail -n 30 "$log"
    echo "$(date +%T) FAILED: $name (exit code $code); all output is in walk.log"
    exit 1
  fi
  echo "$(date +%T) $name: $((SECONDS - start)) s"
}

until_true() { # until_true SECONDS COMMAND...
  local deadline=$((SECONDS + $1))
  shift
  until "$@"; do
    [ $SECONDS -lt $deadline ] || { echo "not within the time: $*"; return 1; }
    sleep 5
  done
}

query() { docker compose exec -T postgres psql --username airflow --tuples-only --no-align --command "$1" airflow; }

base_images() {
  local suite target
  for suite in bookworm trixie; do
    [ "$(docker image inspect --format '{{.Comment}}' debian:$suite)" = "$(stat --format %Y "$folder/$suite.tar")" ] \
      || docker import --message "$(stat --format %Y "$folder/$suite.tar")" "$folder/$suite.tar" debian:$suite
  done
  while read -r target image; do
    docker build --quiet --target "$target" --build-context built="$folder/wheels" --tag "$image" ../tests/docker/images
  done << END
python python:$(sed -n 's/^ARG PYTHON=//p' Dockerfile)-slim-bookworm
postgres $(sed -n 's/^ *image: \(postgres:\)/\1/p' compose.yaml)
seaweedfs $(sed -n 's/^ *image: \(.*seaweedfs:\)/\1/p' compose.yaml)
wheels speck-wheels
END
}

settings() {
  local name
  rm -rf "$folder/data" "$folder/datasets"
  mkdir "$folder/data"
  cp -r ../dags/datasets "$folder/datasets"
  sed -i 's/max_seconds: [0-9]*/max_seconds: 180/' "$folder/datasets/demo.yaml"
  cp .env.example .env && chmod 600 .env
  names_missing_secret
  sed -n '/secrets/,/^$/s/^\([A-Z0-9_]*\)=$/\1/p' .env.example | while read -r name; do
    case $name in
      AIRFLOW_FERNET_KEY) set_env "$name" "$(openssl rand -base64 32 | tr '+/' '-_')" ;;
      *) set_env "$name" "$(openssl rand -hex 32)" ;;
    esac
  done
  set_env SPECK_DATA "$folder/data"
  set_env SPECK_DATASETS "$folder/datasets"
  docker compose down --volumes # of a run that was interrupted
}

names_missing_secret() {
  local message
  ! message=$(docker compose config 2>&1 > /dev/null) || return 1
  echo "$message"
  grep --quiet 'required variable [A-Z0-9_]* is missing a value' <<< "$message"
}

set_env() { sed -i "s|^$1=.*|$1=$2|" .env; }

# What a folder may hold that only the build or this script writes to.
expected='^(/tmp|/var/tmp|/mnt|/root(/\.(bashrc|profile))?|/var/lib/apt/lists(/partial|/lock|/auxfiles)?'
expected+='|/opt(/airflow(/logs|/\.(bashrc|profile|bash_logout))?|/speck(/(dags|docker|certificates)(/.*)?)?)?)$'

no_leftovers() {
  local image leftovers
  for image in speck-airflow:0.1.0 speck-worker:0.1.0; do
    leftovers=$(docker run --rm --user 0 --network none "$image" sh -c \
      'find /tmp /var/tmp /mnt /root /var/lib/apt/lists /opt /wheel /project /etc/pip.conf 2> /dev/null || true' \
      | grep -v -E "$expected" || true)
    echo "$image: ${leftovers:-nothing left over}"
    [ -z "$leftovers" ] || return 1
    # In the working folder, where half a package would be found first.
    docker run --rm --network none "$image" python -c 'import etl.jobs.build; print(etl.__file__)'
  done
}

all_healthy() {
  local lines expected
  lines=$(docker compose ps --all --format '{{.Service}} {{.State}} {{.Health}} {{.ExitCode}}')
  echo "$lines"
  expected=$(docker compose config --services | sort)
  [ "$(cut -d ' ' -f 1 <<< "$lines" | sort -u)" = "$expected" ] \
    && ! grep -v -E '^[a-z0-9-]+ running healthy 0$|^(bucket|setup|certificates) exited  0$' <<< "$lines"
}

logged_in() {
  exec 3<> /dev/tcp/127.0.0.1/8080 # the published port
  printf 'GET /api/v2/version HTTP/1.0\r\n\r\n' >&3
  timeout 30 cat <&3 | grep '^HTTP/1.1 200'
  # shellcheck source=/dev/null
  . ./.env
  docker compose exec -T -e USER_NAME="${AIRFLOW_ADMIN_USER:-admin}" -e PASSWORD="$AIRFLOW_ADMIN_PASSWORD" api-server \
    python - << 'END'
import json, os, urllib.request
body = json.dumps({"username": os.environ["USER_NAME"], "password": os.environ["PASSWORD"]}).encode()
request = urllib.request.Request("http://localhost:8080/auth/token", body, {"Content-Type": "application/json"})
token = json.load(urllib.request.urlopen(request, timeout=60))["access_token"]
request = urllib.request.Request("http://localhost:8080/api/v2/dags", headers={"Authorization": f"Bearer {token}"})
print(len(json.load(urllib.request.urlopen(request, timeout=60))["dags"]), "DAGs")
END
}

demo_data() {
  # shellcheck source=/dev/null
  . ./.env && mkdir -p "$SPECK_DATA/demo"
  docker compose run --rm --no-deps --user "$(id -u)" --volume "$SPECK_DATA/demo:/made" dask-worker speck demo-data /made
}

has_dags() { [ "$(query "select count(*) from dag where dag_id in ('demo_build', 'demo_train', 'demo_evaluate')")" = 3 ]; }

trigger() {
  local dag
  until_true 120 has_dags
  for dag in demo_build demo_train demo_evaluate; do
    docker compose exec -T scheduler airflow dags unpause "$dag"
  done
  docker compose exec -T scheduler airflow dags trigger demo_build
}

run_state() { query "select state from dag_run where dag_id = '$1' order by id desc limit 1"; }

succeeded() {
  local state
  state=$(run_state "$1")
  [ "$state" != failed ] || { echo "$1 failed"; exit 1; }
  [ "$state" = success ]
}

task_log() { docker compose exec -T scheduler sh -c "cat /opt/airflow/logs/dag_id=$1/*/task_id=$2/*.log"; }

has_trained_an_epoch() { task_log demo_train train | grep 'epoch 2, step'; }

restart_trainer() {
  until_true 600 has_trained_an_epoch
  docker compose restart dask-trainer
  until_true 300 resumes
}

resumes() { task_log demo_train train | grep 'resuming after epoch'; }

# Snapshots, models with their metrics, promotions and runs, a line each.
results() {
  docker compose exec -T dask-worker speck snapshots /opt/speck/datasets/demo.yaml
  docker compose exec -T dask-worker speck models /opt/speck/datasets/demo.yaml
  query "select dag_id, run_id, state from dag_run order by id"
}

judged() {
  results | tee "$folder/results"
  grep ' AP ' "$folder/results"
  verified
}

verified() {
  local snapshot
  snapshot=$(grep --only-matching '^s3://[^ ]*/snapshots/[0-9a-f]*' "$folder/results" | tail -n 1)
  docker compose exec -T dask-worker speck verify "$snapshot"
}

same_results() {
  results > "$folder/results.restored"
  [ -z "$(comm -23 <(sort "$folder/results") <(sort "$folder/results.restored"))" ] \
    || { diff "$folder"/results{,.restored}; return 1; }
  verified
}

new_password_and_certificates() {
  set_env AIRFLOW_ADMIN_PASSWORD "$(openssl rand -hex 32)"
  docker compose down && docker volume rm speck_certificates && docker compose up --detach
}

backup() {
  docker compose exec -T postgres pg_dump --username airflow --format custom airflow > airflow.dump
  docker compose stop
  docker run --rm --volume speck_objects:/data:ro --volume "$PWD":/out postgres:17.9-bookworm tar -czf /out/objects.tgz /data
  docker compose up --detach
}

restore() {
  docker compose down --volumes
  [ -z "$(docker volume ls --quiet)" ]
  docker compose create s3
  docker run --rm --volume speck_objects:/data --volume "$PWD":/out:ro postgres:17.9-bookworm tar -xzf /out/objects.tgz -C /
  docker compose up --detach --wait postgres
  docker compose exec -T postgres pg_restore --username airflow --dbname airflow --clean --if-exists < airflow.dump
  docker compose up --detach
}

taken_down() {
  docker compose down --volumes
  [ -z "$(docker ps --all --quiet)$(docker volume ls --quiet)" ]
  docker image prune --force
}

step "base images" base_images
step "settings in .env" settings
step "images built" docker compose --progress plain build
step "nothing left over in the images" no_leftovers
step "started" docker compose up --detach --build
step "healthy" until_true 600 all_healthy
step "logged in" logged_in
step "demo data" demo_data
step "build triggered" trigger
step "snapshot published" until_true 900 succeeded demo_build
step "training resumed after a restart of the trainer" restart_trainer
step "model trained" until_true 900 succeeded demo_train
step "model evaluated" until_true 600 succeeded demo_evaluate
step "model judged, snapshot verified" judged
step "backup" backup
step "new password and certificates" new_password_and_certificates
step "healthy after that" until_true 600 all_healthy
step "logged in with the new password" logged_in
step "restored into new volumes" restore
step "healthy again" until_true 600 all_healthy
step "logged in again" logged_in
step "all results are back" same_results
step "taken down" taken_down
