# Sourced. Ports for daemons that come back on the ports they had: below those that the kernel gives to who asks for any (32768 on), because
# one of these would be somebody else's meanwhile.
free_port() {
    local p
    while :; do
        p=$((10000 + (RANDOM * 32768 + RANDOM) % 22000))
        (exec 3<>"/dev/tcp/127.0.0.1/$p") 2>/dev/null || { echo $p; return; }
    done
}
