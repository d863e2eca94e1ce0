"""Shell text for the workers of a slice: setup, start, query, stop, and job.sh itself.

On every worker `~/scaling` holds `code/` (one commit), `venv/`, `job.sh`, and the files of the job: `log`, `pid` and,
when it ends, `exit_code`. The job runs in a session of its own, as a systemd unit if possible: a shutdown ends login
sessions with SIGTERM and SIGHUP at once and takes the network down soon after, but training has to save first. `alive`
is locked while any process of the job exists. Objects are copied with the gcloud of the TPU images, as by
`multihost_job.py` of AI-Hypercomputer/maxtext.
"""

import dataclasses
import shlex

SAVING = 90  # seconds between SIGTERM and SIGKILL for the unit; a spot machine has about 30 in total
GRACE = 30  # seconds for programs of an earlier job to release the chips
MIRROR = "UV_PYTHON_INSTALL_MIRROR"  # uv's variable for the place of Python
FAILED = 65  # code of a setup or start that fails by itself, not for want of a connection
FETCHING = 300  # seconds for the code to come from the bucket
STARTING = 30  # seconds for job.sh to start the training; it waits for `alive` itself
HOMES = "/home/*"  # home directories of a worker's users

_HELD = "! flock -s -n alive true 2>/dev/null"  # shared, for two that ask at once
_RUNNING = f"{_HELD} && [ ! -f exit_code ]"
# Two `run`s may follow the same slice. Elsewhere than in ~/scaling nothing may go on: what follows removes files.
_ALONE = "mkdir -p scaling && cd scaling && exec 9>lock && flock 9 || exit 1"
_NUMBER = "worker=$(hostname); worker=${worker##*-w-}"  # t1v-n-0123abcd-w-3
# Another user of this worker whose job has not ended, or has ended and will delete the slice: from the machine of a
# colleague, gcloud connects with another name.
_OTHER = (
    f"other=; for home in {HOMES}; do alive=$home/scaling/alive; as=; "
    '[ "$home" -ef ~ ] || { [ -x "$home" ] && [ ! -e "$alive" ]; } && continue; [ -r "$alive" ] || as="sudo -n"; '
    '$as test -f "$alive" 2>/dev/null && ! $as flock -s -n "$alive" true && other=${home##*/}; done'
)
_ONLY_OURS = (
    f'{_OTHER}; [ -z "$other" ] || {{ echo "another user, $other, has a job here, or one that ended and will delete '
    f'this slice; continue as that user" >&2; exit {FAILED}; }}'
)

STATE = (
    f'{_NUMBER}; {_OTHER}; [ -z "$other" ] || {{ echo "job: $worker running"; exit; }}; '
    f'cd scaling 2>/dev/null && [ -f job.sh ] || {{ echo "job: $worker none"; exit; }}; '
    f"if {_RUNNING}; then state=running; else state=$(cat exit_code 2>/dev/null); "
    "state=${state:-137}; [ -f stopped ] && state=${state}_stopped || { [ -f over ] && state=${state}_over; }; fi; "
    'echo "job: $worker $state $(cat attempt 2>/dev/null)"'
)
STOP = (
    f"cd scaling && {_RUNNING} || {{ {_ONLY_OURS}; echo 'no job is running here'; exit; }}; "
    'while [ ! -f pid ]; do sleep 0.2; done; touch stopped; kill -TERM "$(cat pid)"; '
    "while [ ! -f exit_code ]; do sleep 1; done; "
    'echo "ended with code $(cat exit_code)"'
)
_MINE = f"cd scaling || exit 1; {_ONLY_OURS}"
SHOW = f"{_MINE}; sed 's/^/job.sh: /' job.sh"
LIMIT = f"{_MINE}; echo limit: $(cat limit)"
# The session of an earlier job: a data worker, a python whose shell was killed, a keeper that will delete the slice.
_END = f'if {_HELD} && [ -f session ]; then pkill -KILL -s "$(cat session)" || true; fi'
# Remains of an earlier job: its session, then any process with open chips, then the lock file of a killed libtpu.
_CLEAN = (
    f"root=$(sudo -n true 2>/dev/null && echo sudo -n); {_END}; "
    "chips=$(ls -d /dev/vfio/[0-9]* /dev/accel* 2>/dev/null); "
    'freed() { { [ -z "$chips" ] || ! $root fuser -s -k $chips 2>/dev/null; } && flock -s -n alive true; }; '
    f"for i in $(seq {GRACE}); do freed && break; sleep 1; done; "
    'freed || { echo "an earlier job holds the chips or $PWD/alive, and cannot be ended; delete the slice" >&2; '
    f"exit {FAILED}; }}; "
    '[ -z "$(ls /tmp/libtpu_lockfile 2>/dev/null)" ] || $root flock -n /tmp/libtpu_lockfile true && '
    "$root rm -f /tmp/libtpu_lockfile"
)
_DETACHED = (
    "if [ -d /run/systemd/system ] && sudo -n true 2>/dev/null; then "
    "sudo -n systemd-run --quiet --collect --unit=scaling-$(date +%s) --uid=$(id -u) --gid=$(id -g) "
    "--setenv=HOME=$HOME --property=After=network-online.target --property=KillMode=mixed "
    f"--property=SendSIGHUP=no --property=TimeoutStopSec={SAVING} --property=LimitMEMLOCK=infinity "
    # a training that is killed for its memory must not take the keeper with it
    "--property=LimitNOFILE=1048576 --property=OOMPolicy=continue bash $PWD/job.sh; "
    "else setsid bash job.sh > /dev/null 2>&1 < /dev/null 9>&- & fi"
)


@dataclasses.dataclass(frozen=True)
class Source:
    """Where the workers take code and environment from.

    Attributes:
      code: object in a bucket; empty if it is sent to them as ~/scaling.tgz.
      sha256: of that object.
      bundle: folder in a bucket, see `tpu.cloud.bundle`; empty for a package index.
      mirror: place of Python without a bundle; empty for uv's own.
    """

    code: str = ""
    sha256: str = ""
    bundle: str = ""
    mirror: str = ""


SENT = Source()  # the code by scp, packages from an index


def setup(source: Source) -> str:
    """Replaces the code and makes its environment, unless a job is running. What is left of an ended one ends first:
    it would delete the slice under the next.
    """
    late = shlex.quote(f"{source.code}: did not come within {FETCHING} seconds")
    fetch = (
        f"said=$(timeout {FETCHING} gcloud storage cp {shlex.quote(source.code)} ../scaling.tgz --quiet 2>&1) || "
        f"{{ code=$?; [ $code -ne 124 ] || said={late}; "
        'echo "${said:-gcloud ended with code $code}" >&2; exit 1; }; '
        f"echo '{source.sha256}  ../scaling.tgz' | sha256sum --check --quiet; "
    )
    mirror = f"export {MIRROR}={shlex.quote(source.mirror)}; " if source.mirror else ""
    environment = " ".join(["bash code/tpu/setup.sh", *([shlex.quote(source.bundle)] if source.bundle else [])])
    return (
        f"set -e; trap 'code=$?; [ $code = 0 ] || exit {FAILED}' EXIT; "
        f"{_ALONE}; if {_RUNNING}; then echo 'a job is running here' >&2; exit 1; fi; {_ONLY_OURS}; {_END}; "
        f"export PATH=$PATH:/snap/bin; {fetch if source.code else ''}"
        f"rm -rf code; mkdir code; tar -xzf ../scaling.tgz -C code; {mirror}{environment}; "
        "rm -f job.sh"  # if a start reaches only some workers, the others then have no job instead of an ended one
    )


def start(text: str, attempt: str, until: float) -> str:
    """Starts job.sh unless it is running; does not replace another running job.

    Args:
      text: text of job.sh.
      attempt: name of this start, used for its logs.
      until: time in seconds since 1970 at which worker 0 stops the job; 0 for never.
    """
    write = f"printf %s {shlex.quote(text)}"
    return (
        f"{_ALONE}; if {_RUNNING}; then {write} | cmp -s - job.sh && {_limit(until)} && exit; "
        "echo 'another job is running here' >&2; exit 1; fi; "
        f"{_ONLY_OURS}; {_CLEAN}; rm -f exit_code result stopped over kept log pid session && "
        f"echo {attempt} > attempt && {_limit(until)} && {write} > job.sh || exit 1; {_DETACHED}; "
        f"for i in $(seq {10 * STARTING}); do [ -f pid ] && exit; sleep 0.1; done; "
        f"echo 'the job has not started within {STARTING} seconds' >&2; exit {FAILED}"
    )


def limit(until: float) -> str:
    """Tells worker 0 the limit of its job, see `start`."""
    return f"{_MINE}; {_limit(until)}"


def _limit(until: float) -> str:
    return f"echo {round(until)} > new && mv new limit"


def script(commit: str, environment: dict[str, str], arguments: list[str], keeper: list[str]) -> str:
    """job.sh: runs `python ARGUMENTS` in the shipped code and records its output, process and exit code.

    It forwards SIGTERM and survives it, ignores SIGHUP, as do its children, and ends when `tpu.cloud.keep`, run with
    the arguments `keeper`, does. The exit code is written once the log is complete.
    """
    exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in environment.items())
    python = "../venv/bin/python -u"
    return (
        f"# commit={commit}\ncd ~/scaling/code || exit 1\n"
        "exec 8>../alive\nflock -w 20 8 || exit 1\necho $$ > ../session\n"
        "trap '' HUP\ntrap 'kill -TERM $pid 2>/dev/null' TERM\n"
        f"export PATH=$PATH:/snap/bin\n{exports}"
        f"{python} {shlex.join(arguments)} > ../log 2>&1 &\npid=$!\necho $pid > ../pid\n"
        f"{_NUMBER}\n{python} -m tpu.cloud.keep --worker=$worker {shlex.join(keeper)} > ../keep.log 2>&1 &\nkeeper=$!\n"
        # a trapped signal ends `wait`; once the process has ended, `wait` returns its code
        "while wait $pid; kill -0 $pid 2>/dev/null; do :; done\nwait $pid\necho $? > ../result\n"
        "for i in $(seq 600); do [ -f ../kept ] || ! kill -0 $keeper 2>/dev/null && break; sleep 0.1; done\n"
        "mv ../result ../exit_code\nwait $keeper\n"
    )
