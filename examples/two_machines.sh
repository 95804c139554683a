#!/usr/bin/env bash
# A launch over ranks on two machines, tried on one: each "machine" is a network namespace with an address of
# its own, and a cable (veth) between them. Needs root, iproute2 and nki-sim[dask].
#
#     sudo examples/two_machines.sh [PYTHON]
#
# On real machines only the commands after "dask" and "nki-sim" stay, with the addresses of the machines.
set -euo pipefail
python=${1:-python3}
here=$(cd "$(dirname "$0")" && pwd)
one=(ip netns exec nki1)
two=(ip netns exec nki2)
started=()
clean() {
    for process in "${started[@]}"; do kill -KILL "$process" 2>/dev/null || true; done
    ip netns delete nki1 2>/dev/null || true
    ip netns delete nki2 2>/dev/null || true
}
trap clean EXIT

ip netns add nki1
ip netns add nki2
ip link add cable1 netns nki1 type veth peer name cable2 netns nki2
"${one[@]}" ip address add 10.77.0.1/24 dev cable1
"${two[@]}" ip address add 10.77.0.2/24 dev cable2
"${one[@]}" ip link set lo up && "${one[@]}" ip link set cable1 up
"${two[@]}" ip link set lo up && "${two[@]}" ip link set cable2 up

# The first machine has the scheduler and a worker, the second a worker. With no nanny a worker is one process.
scheduler=tcp://10.77.0.1:8786
worker=(-m distributed.cli.dask_worker "$scheduler" --no-nanny --nthreads 1 --no-dashboard)
"${one[@]}" "$python" -m distributed.cli.dask_scheduler --host 10.77.0.1 --port 8786 --no-dashboard 2>/dev/null &
started+=($!)
"${one[@]}" "$python" "${worker[@]}" 2>/dev/null &
started+=($!)
"${two[@]}" "$python" "${worker[@]}" 2>/dev/null &
second=$!
started+=("$second")
"${one[@]}" "$python" -c "import distributed; distributed.Client('$scheduler', timeout=60).wait_for_workers(2, 120)"

echo "--- in one process"
"$python" "$here/tensor_parallel_mlp.py" 4
echo "--- on two machines"
"${one[@]}" env NKI_SIM_WORKERS="$scheduler" "$python" "$here/tensor_parallel_mlp.py" 4
echo "--- a sweep on two machines"
"${one[@]}" "$python" -c 'from nki_cli.main import app; app()' sweep "$here/matmul.py" --kernel matmul_blocked \
    --set tiles_m=2,4,8 --set tiles_k=2,4,8 --backend dask --cluster "$scheduler" --best 1
echo "--- the second machine stands still, then goes away"
kill -STOP "$second"
"${one[@]}" env NKI_SIM_WORKERS="$scheduler" "$python" "$here/tensor_parallel_mlp.py" 4 &
launch=$!
sleep 20  # it waits for the second machine by then
kill -KILL "$second"
wait "$launch" || echo "--- the launch ended with status $?"
