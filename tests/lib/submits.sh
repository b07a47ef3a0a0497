# Sourced by tests that send POST /v1/jobs themselves: a coordinator that goes and comes, and a body made of a spec whose files are all
# the same byte.
. tests/lib/ports.sh
start() { # on $dir, at $http and $control if they are known; sets them and pid
    "$bin/steer-coordinator" --dir "$dir" --http "${http:-127.0.0.1:$(free_port)}" --control "${control:-tcp://127.0.0.1:$(free_port)}" >>"$dir/log" 2>&1 &
    pid=$!
    for _ in $(seq 3000); do
        grep -q "\"pid\":$pid," "$dir/endpoint.json" 2>/dev/null && break
        sleep 0.01
    done
    http=$(sed -E 's/.*"http":"http:\/\/([^"]*)".*/\1/' "$dir/endpoint.json")
    control=$(sed -E 's/.*"control":"([^"]*)".*/\1/' "$dir/endpoint.json")
}
byte_upload() { # http, directory for scratch: prints the digest of what the files of a spec shall be
    local x
    printf x >"$2/x"
    x=$(sha256sum <"$2/x" | cut -c1-64)
    curl -sf -T "$2/x" "http://$1/v1/artifacts/$x" >/dev/null && echo "$x"
}
body_make() { # spec, digest, file to write
    local yaml files map
    yaml=$(sed 's/\\/\\\\/g; s/"/\\"/g; s/$/\\n/' "$1" | tr -d '\n')
    files=$(grep -oE 'file:[^",}]*' "$1" | sed 's/^file://' | sort -u)
    files+=$'\n'$(sed -nE 's/^ *files: \[(.*)\]/\1/p' "$1")
    map=$(sed '/^$/d' <<<"$files" | sed -E "s/.*/\"&\":\"$2\"/" | paste -sd,)
    echo "{\"spec\":\"$yaml\",\"files\":{$map}}" >"$3"
}
