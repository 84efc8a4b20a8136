# SPDX-License-Identifier: Apache-2.0
"""A real Slurm of two nodes on this machine: munge, one slurmctld and two slurmds.

Everything runs in Linux namespaces: processes, network, mounts and host names of its own. So ports are free, n1 and n2 are two
hosts by name, a node is lost as a whole by one signal, and whatever ends the test, also SIGKILL, ends every daemon, step and
rank with it: the kernel kills all processes of a namespace whose first one has ended. A test script calls `inside()` first;
`Cluster` is for what then runs there.

  python3 cluster.py COMMAND...    runs COMMAND with such a Slurm, to try things by hand"""
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FOLDER = "DEKODER_CLUSTER"  # environment variable: the cluster's own folder; set inside alone
NODES = ("n1", "n2")
TOOLS = ("unshare", "setpriv", "ip", "munged", "mungekey", "slurmctld", "slurmd", "sbatch")
NAMESPACE = ["unshare", "--pid", "--fork", "--kill-child", "--mount", "--uts", "--ipc", "--mount-proc"]

SLURM_CONF = """\
ClusterName=dekoder
SlurmctldHost=control(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
# The second is also the wait before a requeued job may start, 120 s by default.
AuthInfo=socket={folder}/munge/socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={spool}/spool.%n
TmpFS={folder}/tmp.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=pmix
SchedulerParameters=sched_interval=1,sched_min_interval=0,bf_interval=1,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
# Two nodes of two CPUs live on two cores.
SlurmdParameters=config_overrides
{user_signal}SlurmctldParameters=preempt_send_user_signal
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
KillWait={kill_wait}
SlurmdTimeout={slurmd_timeout}
# On a machine that others use as well: time to answer, and ranks have the priority of sbatch, not that of the daemons.
MessageTimeout=60
PropagatePrioProcess=1
ReturnToService=2
MailProg=/bin/true
GresTypes=gpu
NodeName=n1 NodeHostname=n1 NodeAddr=127.0.0.1 Port=17001 CPUs=2 RealMemory=2000 Gres=gpu:2
NodeName=n2 NodeHostname=n2 NodeAddr=127.0.0.1 Port=17002 CPUs=2 RealMemory=2000 Gres=gpu:2
PartitionName=low Nodes=n1,n2 PriorityTier=1 PreemptMode=REQUEUE GraceTime={grace} MaxTime=60 Default=YES
PartitionName=high Nodes=n1,n2 PriorityTier=10 PreemptMode=OFF MaxTime=60
"""

# What the ranks need: TCP between the hosts, and cores that they share.
RANKS = {"OMPI_MCA_pml": "ob1", "OMPI_MCA_btl": "self,tcp", "OMPI_MCA_btl_tcp_if_include": "lo", "OMPI_MCA_mpi_yield_when_idle": "1",
         "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "PRTE_ALLOW_RUN_AS_ROOT": "1",
         "PRTE_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMP_PROC_BIND": "false", "OMP_NUM_THREADS": "1"}


def missing():
    """Why there can be no cluster here; "" where there can."""
    lacking = [tool for tool in TOOLS if shutil.which(tool) is None]
    if lacking:
        return f"missing: {', '.join(lacking)} (packages slurm-wlm, munge, iproute2, util-linux)"
    tried = subprocess.run([*NAMESPACE, "--net", "true"], capture_output=True, text=True)
    return "" if tried.returncode == 0 else f"no namespaces of one's own here (they need root): {tried.stderr.strip()}"


def inside():
    """Returns in the namespaces, where the script is started once more: its first process waits for it and ends as it does.
    Where there can be no cluster the script says so and ends as passed."""
    if FOLDER in os.environ:
        return
    if reason := missing():
        print(f"skipped: {reason}")
        sys.exit(0)
    folder = tempfile.mkdtemp(prefix="dk")  # a short path: sockets lie in it
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        # If this process is killed, so is unshare, and with it the namespace's first process, and with that all others.
        sys.exit(subprocess.run(["setpriv", "--pdeathsig", "KILL", *NAMESPACE, "--net", sys.executable, __file__, "--first", sys.executable,
                                 *sys.argv], env={**os.environ, FOLDER: folder}).returncode)
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        os.rmdir(folder)


def run_as_first_process(command):
    """Starts `command` and buries every process of the namespace that has lost its parent, until `command` ends."""
    child = subprocess.Popen(command)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: child.send_signal(number))
    while True:
        pid, status = os.wait()
        if pid == child.pid:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)


def first_process(command):
    folder = os.environ[FOLDER]
    run = lambda *words: subprocess.run(words, check=True)
    run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", folder)
    run("hostname", "control")
    Path(folder, "hosts").write_text("127.0.0.1 localhost control n1 n2\n")
    run("mount", "--bind", f"{folder}/hosts", "/etc/hosts")
    run("ip", "link", "set", "lo", "up")
    # mpirun's daemons look for an interface besides lo.
    run("ip", "link", "add", "net0", "type", "veth", "peer", "name", "net1")
    run("ip", "addr", "add", "10.213.78.1/24", "dev", "net0")
    run("ip", "link", "set", "net0", "up")
    run("ip", "link", "set", "net1", "up")
    run_as_first_process(command)


def wait_until(condition, what, seconds=60, explain=lambda: ""):
    end = time.monotonic() + seconds
    while not (result := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {what}\n{explain()}")
        time.sleep(0.05)
    return result


class Cluster:
    """`preempt_signal`: a preempted job gets the signal of its --signal at the start of the grace, else TERM. Times in seconds; a node
    that is lost is noticed after `slurmd_timeout` and up to as long again. `spool`: the folder of the slurmds' own, else the cluster's."""

    def __init__(self, preempt_signal=True, grace=10, kill_wait=5, slurmd_timeout=60, spool=None):
        self.folder = Path(os.environ[FOLDER])
        self.spool = Path(spool or self.folder)
        self.conf = self.folder / "slurm.conf"
        self.environment = {**os.environ, **RANKS, "SLURM_CONF": str(self.conf), "TMPDIR": str(self.folder / "tmp")}
        for name in [name for name in self.environment if re.match("(SLURM|SBATCH|OMPI_COMM|PMIX?)_(?!CONF)", name)]:
            del self.environment[name]
        self.processes = {}
        for path in self.folder.iterdir():  # of a cluster before this one
            if path.is_dir() and path.name != "work":
                shutil.rmtree(path)
        for name, mode in (("state", 0o755), ("log", 0o755), ("munge", 0o755), ("tmp", 0o1777), *((f"tmp.{n}", 0o1777) for n in NODES)):
            (self.folder / name).mkdir(exist_ok=True)
            (self.folder / name).chmod(mode)
        (self.folder / "cgroup.conf").write_text("CgroupPlugin=disabled\n")
        (self.folder / "gres.conf").write_text("".join(f"NodeName=n[1-2] Name=gpu File=/dev/{file}\n" for file in ("zero", "full")))
        self.grace = grace
        self.conf.write_text(SLURM_CONF.format(folder=self.folder, spool=self.spool, user_signal="" if preempt_signal else "# ", grace=grace,
                                               kill_wait=kill_wait, slurmd_timeout=slurmd_timeout))
        self.start()

    def daemon(self, name, command, **options):
        with (self.folder / f"log/{name}").open("ab") as log:
            self.processes[name] = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=self.environment,
                                                    start_new_session=True, preexec_fn=lambda: os.nice(-10), **options)

    def start(self):
        munge = self.folder / "munge"
        if not (munge / "key").exists():
            subprocess.run(["mungekey", "-c", "-k", munge / "key"], check=True)
        self.daemon("munged", ["munged", "-F", f"--key-file={munge}/key", f"--socket={munge}/socket", f"--pid-file={munge}/pid",
                               f"--log-file={munge}/log", f"--seed-file={munge}/seed"])
        wait_until((munge / "socket").exists, "munge's socket", 20, self.logs)
        self.daemon("slurmctld", ["slurmctld", "-D"])
        for node in NODES:
            self.start_node(node)
        self.wait_until_idle()

    def start_node(self, node):
        for folder in (self.spool / f"spool.{node}", self.folder / f"tmp.{node}"):  # a socket of a lost step would hinder the next
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        self.daemon(node, [*NAMESPACE, sys.executable, __file__, "--node", node, "slurmd", "-D", "-N", node])

    def lose_node(self, node):
        """As if its power were cut."""
        self.processes[node].kill()
        self.processes[node].wait()

    def stop(self):
        for process in self.processes.values():
            process.kill()
        for process in self.processes.values():
            process.wait()

    def ask(self, *words, check=True, **options):
        done = subprocess.run([str(word) for word in words], capture_output=True, text=True, env=self.environment, timeout=300, **options)
        if check and done.returncode != 0:
            raise AssertionError(f"{words}: exit code {done.returncode}\n{done.stdout}{done.stderr}\n{self.logs()}")
        return done.stdout if check else done

    def wait_until_idle(self, seconds=60):
        wait_until(lambda: self.ask("sinfo", "-h", "-N", "-p", "low", "-o", "%t", check=False).stdout.split() == ["idle"] * len(NODES),
                   "two idle nodes", seconds, self.logs)

    def logs(self):
        """The end of each daemon's log, for a message of a test that fails."""
        return "".join(f"--- {path.name}\n{''.join(path.read_text(errors='replace').splitlines(keepends=True)[-25:])}"
                       for path in sorted((self.folder / "log").iterdir()))

    def submit(self, *words, cwd, **environment):
        done = subprocess.run([shutil.which("sbatch"), "--parsable", *(str(word) for word in words)], cwd=cwd, capture_output=True, text=True,
                              env={**self.environment, **environment})
        if done.returncode != 0:
            raise AssertionError(f"sbatch {words}: {done.stderr}\n{self.logs()}")
        return done.stdout.strip()

    def job(self, job):
        """What scontrol shows of it: JobState, Restarts, ExitCode, Reason, ... A busy munged may turn scontrol away."""
        for _ in range(10):
            done = self.ask("scontrol", "show", "job", "-o", job, check=False)
            if done.returncode == 0:
                return dict(re.findall(r"(\S+?)=(\S*)", done.stdout.splitlines()[0]))
            time.sleep(0.5)
        raise AssertionError(f"scontrol show job {job}: exit code {done.returncode}\n{done.stderr}\n{self.logs()}")

    def wait_for(self, job, *states, seconds=60, explain=lambda: ""):
        ended_since = None

        def reached():
            nonlocal ended_since
            shown = self.job(job)
            if shown["JobState"] in states:
                return shown
            ended = shown["JobState"] in ("FAILED", "CANCELLED", "TIMEOUT")
            ended_since = (ended_since or time.monotonic()) if ended else None
            if ended and time.monotonic() - ended_since > 5:  # a job that is to start again is shown so for a moment
                raise AssertionError(f"job {job} is {shown['JobState']}, expected {states}\n{shown}\n{explain()}\n{self.logs()}")
            return None
        return wait_until(reached, f"job {job} is {' or '.join(states)}", seconds, lambda: f"{self.job(job)}\n{explain()}\n{self.logs()}")

    def cancel_all(self):
        """Also what cannot be stopped or is still ending."""
        self.ask("scancel", "-u", "root", "-s", "KILL", "--full", check=False)
        self.ask("scancel", "-u", "root", check=False)
        wait_until(lambda: not self.ask("squeue", "-h").strip(), "no jobs", 60, self.logs)


if __name__ == "__main__":
    if sys.argv[1] == "--first":
        first_process(sys.argv[2:])
    elif sys.argv[1] == "--node":
        subprocess.run(["hostname", sys.argv[2]], check=True)
        run_as_first_process(sys.argv[3:])
    else:
        inside()
        cluster = Cluster()
        sys.exit(subprocess.run(sys.argv[1:], env=cluster.environment).returncode)
