#!/usr/bin/env bash
# A Ray cluster and the sweep that drives it, in one SLURM allocation:
#
#   sbatch sweeps/cluster/slurm.sh python sweeps/paper_grid.py --data /shared/data --results /shared/results/paper_grid
#
# Edit the sizes below, or give them to sbatch.  The code and .venv lie on a disk that all nodes
# see; images and results are read and written on the first node alone.  Two minutes before the
# time is up the sweep stops by itself and the job goes back into the queue, where it goes on.
#SBATCH --job-name=lesion-sweep
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=4
#SBATCH --mem=128G
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --no-kill
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@120
set -euo pipefail

if [ $# -eq 0 ]; then
    echo "expected a command behind slurm.sh, such as: python sweeps/paper_grid.py" >&2
    exit 2
fi
cd "$SLURM_SUBMIT_DIR"
# shellcheck disable=SC1091
source .venv/bin/activate

# Another job may run Ray on the same node: ports and folders are this job's own.
nodes=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=$(head --lines=1 <<<"$nodes")
head_ip=$(srun --overlap --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address | awk '{print $1}')
port=$((20000 + SLURM_JOB_ID % 20000))
address="$head_ip:$port"
gpus=${SLURM_GPUS_ON_NODE:-0}
temporary="/tmp/ray-$SLURM_JOB_ID"
RAY_AUTH_TOKEN=$(python -c "import secrets; print(secrets.token_hex(32))")
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK" # srun no longer takes it from sbatch

resources=(--num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus="$gpus" --disable-usage-stats --block)
srun --overlap --nodes=1 --ntasks=1 --nodelist="$head" \
    ray start --head --node-ip-address="$head_ip" --port="$port" --temp-dir="$temporary" \
    --include-dashboard=false "${resources[@]}" &
ray_head=$!
rays=("$ray_head")
clean_up() { # what Ray leaves in its folder on each node; none waits for a node that is lost
    trap - EXIT
    kill "${rays[@]}" 2>/dev/null || true
    wait "${rays[@]}" 2>/dev/null || true
    timeout 30 srun --overlap --no-kill --nodes="$SLURM_JOB_NUM_NODES" \
        --ntasks="$SLURM_JOB_NUM_NODES" rm -rf "$temporary" || true
}
trap clean_up EXIT
for attempt in $(seq 120); do
    ray health-check --address "$address" 2>/dev/null && break
    if [ "$attempt" -eq 120 ] || ! kill -0 "$ray_head" 2>/dev/null; then
        echo "error: Ray does not start on $head; see what it says above" >&2
        exit 1
    fi
    sleep 2
done
if [ "$SLURM_JOB_NUM_NODES" -gt 1 ]; then
    others=$((SLURM_JOB_NUM_NODES - 1))
    srun --overlap --no-kill --nodes="$others" --ntasks="$others" --exclude="$head" \
        ray start --address="$address" "${resources[@]}" &
    rays+=("$!")
fi

# Until every node is there, or five minutes: the sweep uses those that come later, too.
python - "$address" "$SLURM_JOB_NUM_NODES" <<'PYTHON'
import sys, time, ray
ray.init(address=sys.argv[1], logging_level="ERROR", log_to_driver=False)
deadline = time.monotonic() + 300
while (there := sum(n["Alive"] for n in ray.nodes())) < int(sys.argv[2]):
    if time.monotonic() > deadline:
        print(f"warning: {there} of {sys.argv[2]} nodes have started Ray", file=sys.stderr)
        break
    time.sleep(2)
PYTHON

"$@" --address "$address" &
sweep=$!
warned=""
trap 'warned=yes; kill -TERM "$sweep" 2>/dev/null || true' TERM USR1 USR2
status=0
wait "$sweep" || status=$?
while [ -n "$warned" ]; do # a signal ended the waiting, not the sweep, which may end otherwise
    warned=""
    ended=0
    wait "$sweep" || ended=$?
    if [ "$ended" -ne 127 ]; then # 127: its end was heard of before
        status=$ended
    fi
done
clean_up
if [ "$status" -eq 143 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
